//! Data, prompts and model directories that cannot be read: exit code 1 and a sentence that names the file.

use crate::support::{Folder, edit_json};
use foretoken::checkpoint::{ModelDir, encode};
use serde_json::{Value, json};
use std::fs;

/// Commands that read `model`.
const READERS: [&str; 3] = [
    "inspect model --json",
    "eval model --data text.txt --json",
    "generate model --prompt a --json",
];

#[test]
fn data_that_cannot_be_read_is_refused() {
    let folder = Folder::with_model();
    fs::write(folder.path("empty.txt"), "").expect("a file");
    fs::create_dir(folder.path("folder")).expect("a directory");
    let train = "train --out run --context 16";
    for (file, reason) in [
        ("missing.txt", "read"),
        ("empty.txt", "empty"),
        ("folder", "directory"),
        ("text.txt/x", "read"),
    ] {
        let names = [file, reason];
        folder.refuses(&format!("{train} --data {file}"), 1, &names);
        folder.refuses(&format!("{train} --data text.txt {file}"), 1, &names);
        folder.refuses(
            &format!("{train} --data text.txt --valid {file}"),
            1,
            &names,
        );
        folder.refuses(&format!("eval model --data {file}"), 1, &names);
    }
    for (file, reason) in [("missing.txt", "read"), ("folder", "read")] {
        folder.refuses(
            &format!("generate model --prompt-file {file}"),
            1,
            &[file, reason],
        );
    }
    folder.refuses("generate model --prompt-file empty.txt", 2, &["prompt"]);
}

#[test]
fn data_shorter_than_a_window_is_refused_with_both_lengths() {
    let folder = Folder::with_model();
    let write = |len| fs::write(folder.path("short.txt"), "x".repeat(len)).expect("a file");
    // Nine tenths are for training, and a window of context 16 has 17 tokens.
    let train = "train --out run --data short.txt --context 16 --batch 1 --steps 1";
    write(18);
    folder.refuses(train, 2, &["--data", "16 tokens", "17"]);
    write(10);
    folder.refuses(
        &format!("{train} --valid text.txt"),
        2,
        &["--data", "10 tokens", "17"],
    );
    write(1);
    let valid = "train --out run --data text.txt --context 16 --valid short.txt";
    folder.refuses(valid, 2, &["validation", "1 token", "2"]);
    folder.refuses(
        "eval model --data short.txt",
        2,
        &["--data", "1 token", "2"],
    );
    write(20);
    folder.succeeds(train);
}

#[test]
fn an_out_directory_that_cannot_be_made_is_refused() {
    let folder = Folder::with_text();
    let train = "train --data text.txt --context 16 --steps 1 --out";
    folder.refuses(&format!("{train} text.txt/run"), 1, &["text.txt"]);
    let long = "x".repeat(300);
    folder.refuses(&format!("{train} {long}"), 1, &[&long]);
}

#[test]
fn a_model_directory_with_a_file_missing_or_replaced_is_refused() {
    for command in READERS {
        let folder = Folder::with_model();
        folder.refuses(&command.replacen("model", "missing", 1), 1, &["missing"]);
        folder.refuses(&command.replacen("model", "text.txt", 1), 1, &["text.txt"]);
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            let path = folder.path("model").join(file);
            let whole = fs::read(&path).expect("a file");
            fs::remove_file(&path).expect("a file");
            folder.refuses(command, 1, &[file, "read"]);
            fs::create_dir(&path).expect("a directory");
            folder.refuses(command, 1, &[file, "directory"]);
            fs::remove_dir(&path).expect("a directory");
            for wrong in ["", "x", "{}", "[1, 2", "\0\0\0\0\0\0\0\0\0"] {
                fs::write(&path, wrong).expect("a file");
                folder.refuses(command, 1, &[file]);
            }
            fs::write(&path, &whole[..whole.len() / 2]).expect("a file");
            folder.refuses(command, 1, &[file]);
            fs::write(&path, &whole).expect("a file");
        }
        folder.succeeds(command);
    }
}

#[test]
fn weights_that_are_not_the_models_are_refused() {
    let folder = Folder::with_model();
    let path = folder.path("model/model.safetensors");
    let whole = fs::read(&path).expect("a file");
    let header = u64::from_le_bytes(*whole.first_chunk().expect("a length")) as usize;
    let file = "model.safetensors";
    let refuses = |bytes: &[u8], names: &[&str]| {
        fs::write(&path, bytes).expect("a file");
        for command in READERS {
            folder.refuses(command, 1, names);
        }
    };
    for cut in [
        1,
        7,
        8,
        9,
        8 + header / 2,
        8 + header,
        9 + header,
        whole.len() - 1,
    ] {
        refuses(&whole[..cut], &[file, "truncated"]);
    }
    refuses(&[&whole[..], &[0]].concat(), &[file, "too long"]);
    for bits in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut spoilt = whole.clone();
        let end = spoilt.len() - 4;
        spoilt[end..].copy_from_slice(&bits.to_le_bytes());
        refuses(&spoilt, &[file, "tensor `", &bits.to_string(), "finite"]);
    }
    fs::write(&path, &whole).expect("a file");
    let (model, _) = ModelDir::load(&folder.path("model")).expect("a valid model");
    let tensors: Vec<_> = model
        .params()
        .iter()
        .map(|(n, t)| (n, t.shape(), t.data()))
        .collect();
    assert_eq!(encode(&tensors).expect("finite"), whole);
    for i in [0, tensors.len() / 2, tensors.len() - 1] {
        let (name, shape, data) = tensors[i];
        let mut other = tensors.clone();
        let flat = [data.len(), 1, 1];
        other[i] = (name, &flat, data);
        refuses(
            &encode(&other).expect("finite"),
            &[file, name, &format!("{shape:?}")],
        );
        other.remove(i);
        refuses(&encode(&other).expect("finite"), &[file, name, "missing"]);
    }
    // Finite weights whose logits are not.
    let last = tensors
        .iter()
        .position(|(name, ..)| *name == "model.norm.weight");
    let last = last.expect("the norm before the logits");
    let (name, shape, data) = tensors[last];
    let large = vec![3.4e38; data.len()];
    let mut other = tensors.clone();
    other[last] = (name, shape, &large);
    fs::write(&path, encode(&other).expect("finite")).expect("a file");
    for command in &READERS[1..] {
        folder.refuses(command, 1, &["error: the lo"]);
    }
    let extra = [&tensors[..], &[("lm_head.weight", &[1], &[0.0])]].concat();
    refuses(
        &encode(&extra).expect("finite"),
        &[file, "lm_head.weight", "does not have"],
    );
}

/// Fields, values that no model can have, and how the message names the place: by the field, or by line and column if
/// the JSON type is wrong.
fn wrong_fields() -> Vec<(&'static str, Value, &'static str)> {
    let huge = [json!(u64::MAX), json!(1_u64 << 62), json!(1_u64 << 32)];
    let types = [
        json!("8"),
        json!(null),
        json!(-1),
        json!(1.5),
        json!([8]),
        json!({}),
        json!(true),
    ];
    let place = "line 1 column";
    let mut wrong = Vec::new();
    for field in [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
        "mtp_depth",
        "mtp_hidden_size",
        "mtp_intermediate_size",
    ] {
        let sizes = huge.iter().cloned().chain([json!(0)]);
        let no_heads = |value: &Value| field == "mtp_depth" && *value == json!(0);
        wrong.extend(
            sizes
                .filter(|v| !no_heads(v))
                .map(|value| (field, value, field)),
        );
        for value in &types {
            match (field, value.is_null()) {
                // Without a head size it is that of the width.
                ("head_dim", true) => {}
                ("num_key_value_heads", true) => wrong.push((field, value.clone(), "missing")),
                _ => wrong.push((field, value.clone(), place)),
            }
        }
    }
    for (field, value) in [
        ("num_key_value_heads", json!(3)),
        ("head_dim", json!(7)),
        ("mtp_depth", json!(65)),
        ("mtp_hidden_size", json!(9)),
        ("mtp_hidden_size", json!(24)),
        ("rms_norm_eps", json!(0.0)),
        ("rms_norm_eps", json!(-1e-6)),
        ("rope_theta", json!(0.5)),
        ("rope_theta", json!(1e300)),
        ("attention_bias", json!(true)),
    ] {
        wrong.push((field, value, field));
    }
    for (field, value) in [
        ("rms_norm_eps", json!("1e-6")),
        ("rope_theta", json!(null)),
        ("tie_word_embeddings", json!(1)),
        ("use_qk_norm", json!("yes")),
        ("mtp_kind", json!("medieval")),
        ("mtp_kind", json!(3)),
        ("foretoken_arithmetic", json!(u64::MAX)),
    ] {
        wrong.push((field, value, place));
    }
    wrong.push(("foretoken_arithmetic", json!(2), "arithmetic version 2"));
    wrong
}

#[test]
fn a_config_that_no_model_can_have_is_refused_by_field() {
    let folder = Folder::with_model();
    let path = folder.path("model/config.json");
    let whole = fs::read(&path).expect("a file");
    for (field, value, name) in wrong_fields() {
        fs::write(&path, &whole).expect("a file");
        edit_json(&path, |config| config[field] = value.clone());
        folder.refuses(READERS[0], 1, &["config.json", name]);
    }
    let required = "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads \
                    num_key_value_heads max_position_embeddings rms_norm_eps rope_theta";
    for field in required.split_whitespace() {
        fs::write(&path, &whole).expect("a file");
        edit_json(&path, |config| {
            config.as_object_mut().expect("an object").remove(field);
        });
        folder.refuses(READERS[0], 1, &["config.json", field, "missing"]);
    }
    for (text, reason) in [
        ("[]", "expected"),
        ("null", "expected"),
        ("{", "line 1"),
        ("{} {}", "line 1"),
    ] {
        fs::write(&path, text).expect("a file");
        folder.refuses(READERS[0], 1, &["config.json", reason]);
    }
    fs::write(&path, &whole).expect("a file");
    folder.succeeds(READERS[0]);
}

/// Sizes claimed by a config, next to weights of some kilobytes. If memory were reserved by a claim, the program would
/// be killed: its address space is limited to less than each of them.
#[cfg(target_os = "linux")]
#[test]
fn no_claim_of_a_file_reserves_memory() {
    use std::process::Command;
    let folder = Folder::with_model();
    let limited = || {
        let mut command = Command::new("sh");
        let script = "ulimit -v 300000 && exec \"$0\" inspect model --json";
        command.args(["-c", script, env!("CARGO_BIN_EXE_foretoken")]);
        command.current_dir(folder.path(""));
        command
    };
    let output = limited().output().expect("a shell");
    assert!(output.status.success(), "the limit is too low: {output:?}");
    let path = folder.path("model/config.json");
    let whole = fs::read(&path).expect("a file");
    for claims in [
        &[
            ("hidden_size", 1 << 16),
            ("intermediate_size", 1 << 18),
            ("num_hidden_layers", 1 << 10),
        ][..],
        &[("intermediate_size", 1 << 18)],
        &[("num_hidden_layers", 1 << 10)],
        &[("head_dim", 1 << 10), ("num_attention_heads", 1 << 10)],
        &[("vocab_size", 1 << 24)],
    ] {
        edit_json(&path, |config| {
            for (field, value) in claims {
                config[*field] = json!(value);
            }
        });
        folder.command_refuses(limited(), 1, &["model/"]);
        fs::write(&path, &whole).expect("a file");
    }
    let weights = folder.path("model/model.safetensors");
    let huge = 1_u64 << 40;
    let header = json!({ "a": { "dtype": "F32", "shape": [huge], "data_offsets": [0, 4 * huge] } });
    let header = header.to_string();
    let length = (header.len() as u64).to_le_bytes();
    for bytes in [
        [&length[..], header.as_bytes()].concat(),
        [&(1_u64 << 33).to_le_bytes()[..], header.as_bytes()].concat(),
        [&u64::MAX.to_le_bytes()[..], header.as_bytes()].concat(),
    ] {
        fs::write(&weights, bytes).expect("a file");
        folder.command_refuses(limited(), 1, &["model.safetensors", "truncated"]);
    }
}
