//! Runs that succeed: what they print and write, and that threads and instruction sets change neither.

use crate::support::{Folder, assert_keys, objects};
use foretoken::simd::isa::NAMES;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;

/// A run that takes a second or less.
const TRAIN: &str = "train --data text.txt --out run --batch 2 --context 16 --steps 3";

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn len(object: &Value, key: &str) -> usize {
    object[key].as_array().expect("a list").len()
}

/// An event's name and its step.
fn name(event: &Value) -> (&str, u64) {
    let step = event["step"].as_u64().or(event["steps"].as_u64());
    (
        event["event"].as_str().expect("a name"),
        step.expect("a step"),
    )
}

#[test]
fn train_prints_its_events_and_writes_a_model() {
    let folder = Folder::with_text();
    let printed = folder.succeeds(&format!(
        "{TRAIN} --json --log-every 1 --eval-every 2 --valid-tokens all"
    ));
    let events = objects(&printed);
    let expected = [
        ("step", 1),
        ("step", 2),
        ("eval", 2),
        ("step", 3),
        ("eval", 3),
        ("done", 3),
    ];
    assert_eq!(events.iter().map(name).collect::<Vec<_>>(), expected);
    for event in &events {
        match event["event"].as_str().expect("a name") {
            "step" => assert_keys(
                event,
                "step loss loss_heads lr tokens_per_s training_seconds",
            ),
            "eval" => {
                assert_keys(
                    event,
                    "step split loss bits_per_byte loss_heads accuracy_heads training_seconds",
                );
                assert_eq!(event["split"], "valid");
                assert_eq!(event["loss"], event["loss_heads"][0]);
                assert_eq!(len(event, "accuracy_heads"), 4);
            }
            _ => assert_keys(event, "dir steps tokens_per_s peak_rss_mb seconds sha256"),
        }
        if event["event"] != "done" {
            // The main head and three others, none yet better than chance: ln 257 = 5.55 nats.
            assert_eq!(len(event, "loss_heads"), 4);
            let losses = event["loss_heads"].as_array().expect("a list").iter();
            assert!(
                losses
                    .map(|x| x.as_f64().expect("a number"))
                    .all(|x| x > 2.0 && x < 8.0)
            );
        }
    }
    // The time of the steps, without evaluations, is less than the time of the run.
    let done = events.last().expect("an event");
    let seconds = |event: &Value| event["training_seconds"].as_f64();
    let clock: Vec<f64> = events.iter().filter_map(seconds).collect();
    assert_eq!(clock.len(), 5);
    assert!(clock[0] > 0.0 && clock.is_sorted(), "{clock:?}");
    assert_eq!((clock[1], clock[3]), (clock[2], clock[4]));
    assert!(clock[4] < done["seconds"].as_f64().expect("a number"));
    assert_eq!(done["dir"], "run");
    let mut files: Vec<String> = fs::read_dir(folder.path("run"))
        .expect("a directory")
        .map(|e| {
            e.expect("an entry")
                .file_name()
                .into_string()
                .expect("text")
        })
        .collect();
    files.sort();
    assert_eq!(
        files,
        [
            "config.json",
            "metrics.jsonl",
            "model.safetensors",
            "tokenizer.json",
            "train.lock",
            "train_state.safetensors"
        ]
    );
    let weights = fs::read(folder.path("run/model.safetensors")).expect("a file");
    assert_eq!(done["sha256"], sha256(&weights));
    let metrics = fs::read_to_string(folder.path("run/metrics.jsonl")).expect("a file");
    assert_eq!(objects(&metrics), events);
    for file in ["config.json", "tokenizer.json"] {
        let text = fs::read(folder.path("run").join(file)).expect("a file");
        assert!(
            serde_json::from_slice::<Value>(&text)
                .expect("JSON")
                .is_object()
        );
    }

    // The last evaluation is that of the model on the disk, on the same last tenth.
    let text = fs::read(folder.path("text.txt")).expect("a file");
    fs::write(folder.path("rest.txt"), &text[text.len() * 9 / 10..]).expect("a file");
    let again = objects(&folder.succeeds("eval run --data rest.txt --json"));
    for key in ["loss", "bits_per_byte", "loss_heads", "accuracy_heads"] {
        assert_eq!(again[0][key], events[4][key], "{key}");
    }
}

#[test]
fn train_prints_text_without_json() {
    let folder = Folder::with_text();
    let output = folder.command(TRAIN).output().expect("the binary");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let weights = fs::read(folder.path("run/model.safetensors")).expect("a file");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(
        text.contains("loss") && text.contains(&sha256(&weights)),
        "{text}"
    );
}

#[test]
fn a_profile_names_operations_and_changes_no_weight() {
    let folder = Folder::with_text();
    folder.succeeds(TRAIN);
    let weights = fs::read(folder.path("run/model.safetensors")).expect("a file");
    let output = folder
        .command(&format!("{TRAIN} --force --profile"))
        .output();
    let table = String::from_utf8(output.expect("a process").stderr).expect("text");
    for name in ["Attention backward", "Optimiser update", "all, per step"] {
        assert!(table.contains(name), "{table}");
    }
    assert_eq!(
        fs::read(folder.path("run/model.safetensors")).expect("a file"),
        weights
    );
}

#[test]
fn threads_and_instruction_sets_never_show_in_the_weights() {
    let weights = |flags: &str, isa: Option<&str>| {
        let folder = Folder::with_text();
        let mut command = folder.command(&format!("{TRAIN} {flags}"));
        if let Some(isa) = isa {
            command.env("FORETOKEN_ISA", isa);
        }
        let output = command.output().expect("the binary");
        assert!(output.status.success(), "{flags} {isa:?}: {output:?}");
        fs::read(folder.path("run/model.safetensors")).expect("a file")
    };
    let expected = weights("", None);
    for threads in ["--threads 1", "--threads 2", "--threads 3"] {
        assert!(weights(threads, None) == expected, "{threads}");
    }
    for isa in NAMES {
        if foretoken::simd::Isa::named(isa).is_none() {
            eprintln!("{isa}: not on this machine, so the next lower one ran in its place");
        }
        assert!(weights("--threads 2", Some(isa)) == expected, "{isa}");
    }
    assert!(
        weights("--seed 2", None) != expected,
        "the seed decides nothing"
    );
}

#[test]
fn reports_have_their_documented_keys() {
    let folder = Folder::with_model();
    let one = |words: &str| {
        let mut found = objects(&folder.succeeds(words));
        assert_eq!(found.len(), 1, "{words}");
        found.remove(0)
    };
    let eval = one("eval model --data text.txt text.txt --json");
    assert_keys(
        &eval,
        "loss bits_per_byte loss_heads accuracy_heads tokens weights",
    );
    let text = fs::metadata(folder.path("text.txt")).expect("a file").len();
    // Two texts with one end-of-text token between; every token but the first is predicted.
    assert_eq!(eval["tokens"], 2 * text);
    assert_eq!(
        (len(&eval, "loss_heads"), len(&eval, "accuracy_heads")),
        (4, 4)
    );
    assert_eq!(eval["weights"], "f32");
    let mut losses = vec![eval["loss"].as_f64().expect("a loss")];
    for format in ["bf16", "q8"] {
        let words = "eval model --data text.txt text.txt --json --weights";
        let eval = one(&format!("{words} {format}"));
        assert_eq!(eval["weights"], format);
        losses.push(eval["loss"].as_f64().expect("a loss"));
        // Rounding moves every logit a little.
        let (exact, rounded) = (losses[0], losses[losses.len() - 1]);
        assert!(exact != rounded && (exact - rounded).abs() < 0.1);
    }
    assert_ne!(losses[1], losses[2], "the formats are the same");

    let inspect = one("inspect model --json");
    assert_keys(
        &inspect,
        "parameters trunk_parameters head_parameters head_share shared_parameters bytes flops_per_token config",
    );
    let count = |key: &str| inspect[key].as_u64().expect("a count");
    assert_eq!(
        count("parameters"),
        count("trunk_parameters") + count("head_parameters")
    );
    assert_eq!(count("bytes"), 4 * count("parameters"));
    // V 257 and C 16, and the LM head is tied to the embedding.
    assert_eq!(count("shared_parameters"), 257 * 16);
    assert_keys(&inspect["flops_per_token"], "context train decode draft");
    let bytes = fs::read(folder.path("model/model.safetensors")).expect("a file");
    let header = u64::from_le_bytes(*bytes.first_chunk().expect("a length"));
    assert_eq!(count("parameters") * 4, bytes.len() as u64 - 8 - header);
    let config = fs::read(folder.path("model/config.json")).expect("a file");
    let mut config: Value = serde_json::from_slice(&config).expect("JSON");
    // This one is about another file and not about the model's sizes.
    let fields = config.as_object_mut().expect("an object");
    let tokenizer = fs::read(folder.path("model/tokenizer.json")).expect("a file");
    let seal = fields.remove("foretoken_tokenizer_sha256");
    assert_eq!(seal, Some(sha256(&tokenizer).into()));
    assert_eq!(inspect["config"], config);
}

#[test]
fn drafts_never_change_a_token() {
    let folder = Folder::with_model();
    fs::write(folder.path("prompt.txt"), "Once upon").expect("a file");
    let prompt = "generate model --prompt-file prompt.txt --max-tokens";
    let generate = |flags: &str| {
        let words = format!("{prompt} 30 --json {flags}");
        objects(&folder.succeeds(&words)).remove(0)
    };
    let plain = generate("--decode plain");
    let keys = "text tokens prompt_tokens new_tokens steps tokens_per_step tokens_per_s drafted_by_depth \
                accepted_by_depth";
    assert_keys(&plain, keys);
    assert_eq!(
        (&plain["prompt_tokens"], &plain["new_tokens"]),
        (&9.into(), &30.into())
    );
    assert_eq!(
        (len(&plain, "tokens"), len(&plain, "drafted_by_depth")),
        (30, 0)
    );
    assert_eq!(
        (&plain["steps"], &plain["tokens_per_step"]),
        (&30.into(), &1.0.into())
    );
    let drafted = |report: &Value| len(report, "drafted_by_depth");
    for (flags, depths) in [
        ("--draft auto", usize::MAX),
        ("--decode speculative --threads 1", usize::MAX),
        ("--draft 3", 3),
        ("--draft 0", 0),
        ("--draft 1", 1),
        ("--draft 1000000000000000000", 3),
    ] {
        let report = generate(flags);
        assert_keys(&report, keys);
        assert_eq!(report["tokens"], plain["tokens"], "{flags}");
        assert_eq!(report["text"], plain["text"], "{flags}");
        // `auto` decides by measured time.
        let expected = if depths > 3 {
            drafted(&report).min(3)
        } else {
            depths
        };
        assert_eq!(drafted(&report), expected, "{flags}: {report}");
        // Each step yields one token, and one more for every draft that it accepted.
        let accepted = report["accepted_by_depth"]
            .as_array()
            .expect("a list")
            .iter();
        let accepted: u64 = accepted.map(|n| n.as_u64().expect("a count")).sum();
        assert_eq!(
            report["steps"].as_u64().expect("a count") + accepted,
            30,
            "{flags}: {report}"
        );
    }
    let text = folder.succeeds(&format!("{prompt} 30"));
    assert_eq!(text, format!("{}\n", plain["text"].as_str().expect("text")));
    let none = objects(&folder.succeeds(&format!("{prompt} 0 --json"))).remove(0);
    assert_eq!((&none["text"], len(&none, "tokens")), (&"".into(), 0));
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let folder = Folder::with_model();
    for words in [
        &format!("{TRAIN} --json --log-every 1"),
        "eval model --data text.txt --json",
        "generate model --prompt a --json",
        "generate model --prompt a",
        "generate model --prompt a --show-drafts",
        "speed model --prompt a --max-tokens 3 --repeats 1",
        "inspect model",
        "train --help",
    ] {
        // The reading end is closed before the program starts, so that its first write fails.
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = folder
            .command(words)
            .stdout(writer)
            .output()
            .expect("the binary");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{words}: {errors}");
        assert!(
            !errors.contains("panicked") && !errors.contains("error"),
            "{words}: {errors}"
        );
    }
    // The run continued to its end.
    let metrics = fs::read_to_string(folder.path("run/metrics.jsonl")).expect("a file");
    let events = objects(&metrics);
    let weights = fs::read(folder.path("run/model.safetensors")).expect("a file");
    assert_eq!(events.last().expect("an event")["sha256"], sha256(&weights));
}

/// A failed write must not pass for success, unless the reader has closed the pipe.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_standard_output_is_an_error() {
    let folder = Folder::with_model();
    for words in [
        TRAIN,
        "eval model --data text.txt",
        "generate model --prompt a",
        "inspect model --json",
    ] {
        let full = fs::File::options()
            .write(true)
            .open("/dev/full")
            .expect("a device");
        let output = folder
            .command(words)
            .stdout(full)
            .output()
            .expect("the binary");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words}: {errors}");
        assert!(
            errors.contains("error: write standard output"),
            "{words}: {errors}"
        );
    }
}
