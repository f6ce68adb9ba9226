//! Runs on token files and learned vocabularies, and runs that start from a model.

use crate::runs::{
    STEPS, begin, begin_on, begin_with, config, copy, same, step, uninterrupted_on, until,
};
use crate::support::{Folder, objects};
use foretoken::checkpoint::ModelDir;
use foretoken::data::{Tokenizer, corpus, open_tokens};
use foretoken::model::{HeadKind, Model, layout};
use foretoken::train::{Event, Origin, Regime, Run, TextFile};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, SystemTime};

/// The folder with a learned vocabulary in `words.json` and the tokens of its text in `tokens.bin`.
fn with_tokens() -> Folder {
    let folder = Folder::with_text();
    folder.succeeds("tokenizer train --data text.txt --vocab 300 --out words.json");
    folder.succeeds("tokenizer encode --tokenizer words.json --data text.txt --out tokens.bin");
    folder
}

#[test]
fn a_run_on_a_token_file_resumes_to_the_same_bits() {
    let folder = with_tokens();
    let tokenizer = Tokenizer::load(&folder.path("words.json")).expect("a tokenizer");
    for kind in [HeadKind::Recursive, HeadKind::Sequential] {
        let config = config(kind);
        let origin = Origin {
            data: TextFile::read(&[folder.path("tokens.bin")]).expect("a file"),
            ..Origin::default()
        };
        begin_on(&folder, "whole", kind, &config, &tokenizer, origin);
        copy(&folder.path("whole"), &folder.path("stopped"));
        let printed = folder.succeeds("train --resume whole --json");
        let done = objects(&printed).pop().expect("an event");
        // The text itself, in memory, gives the same weights.
        let tokens = open_tokens(&[folder.path("text.txt")], &tokenizer, None).expect("a text");
        let expected = uninterrupted_on(kind, &config, &tokenizer, &tokens);
        assert_eq!(done["sha256"], Value::from(expected), "{kind:?}");
        for at in [5, STEPS / 2, STEPS - 1] {
            until(&folder, "stopped", at);
        }
        folder.succeeds("train --resume stopped");
        same(
            &format!("{kind:?}"),
            &folder.path("stopped"),
            &folder.path("whole"),
        );
        for name in ["whole", "stopped"] {
            fs::remove_dir_all(folder.path(name)).expect("a directory");
        }
    }
}

#[test]
fn another_token_file_is_refused() {
    let folder = with_tokens();
    let start = "train --data tokens.bin --tokenizer words.json --batch 2 --context 16 --steps 2 --valid-tokens all --out run";
    folder.succeeds(start);
    fs::copy(folder.path("tokens.bin"), folder.path("kept.bin")).expect("a file");
    let resume = "train --resume run --steps 3 --extend";
    // The text itself is refused, and so is a token file of the same text with a different vocabulary.
    folder.refuses(
        &format!("{resume} --data text.txt"),
        2,
        &["--data", "text.txt"],
    );
    folder.succeeds("tokenizer encode --data text.txt --out tokens.bin --force");
    folder.refuses(resume, 2, &["--data", "tokens.bin", "bytes"]);
    // The same number of tokens, one of them different.
    let mut bytes = fs::read(folder.path("kept.bin")).expect("a file");
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs::write(folder.path("tokens.bin"), &bytes).expect("a file");
    folder.refuses(resume, 2, &["--data", "tokens.bin", "SHA-256"]);
    fs::rename(folder.path("kept.bin"), folder.path("moved.bin")).expect("a file");
    let moved = format!("{resume} --data moved.bin");
    folder.refuses(
        &format!("{moved} --valid-tokens 9"),
        2,
        &["--valid-tokens 9", "all"],
    );
    folder.refuses(&format!("{moved} --split-on x"), 2, &["--split-on x"]);
    folder.succeeds(&format!(
        "{moved} --valid-tokens all --tokenizer words.json"
    ));
}

/// A token file that changes while a run reads it ends the run. The last checkpoint stays.
#[test]
fn a_token_file_that_changes_ends_the_run() {
    let folder = with_tokens();
    let tokenizer = Tokenizer::load(&folder.path("words.json")).expect("a tokenizer");
    let (kind, path) = (HeadKind::Parallel, folder.path("tokens.bin"));
    let origin = Origin {
        data: TextFile::read(std::slice::from_ref(&path)).expect("a file"),
        ..Origin::default()
    };
    let mut config = config(kind);
    config.save_every = Some(4);
    begin_on(&folder, "run", kind, &config, &tokenizer, origin);
    let (mut run, mut trainer, _) = Run::open(&folder.path("run")).expect("a run");
    let tokens = open_tokens(std::slice::from_ref(&path), &tokenizer, None).expect("tokens");
    let valid = tokens.split().1.first(40).expect("tokens");
    let mut watch = |event: &Event| {
        if matches!(event, Event::Step { step: 6, .. }) {
            let file = fs::File::options().write(true).open(&path);
            let later = SystemTime::now() + Duration::from_secs(60);
            file.expect("a file").set_modified(later).expect("a time");
        }
    };
    let ended = trainer.run(tokens, valid, &tokenizer, Some(&mut run), &mut watch);
    let message = ended.expect_err("a file that changed").to_string();
    let named = message.starts_with(&path.display().to_string());
    assert!(named && message.contains("changed"), "{message}");
    assert!(message.contains("the checkpoint of step 4"), "{message}");
    assert_eq!((step(&folder.path("run")), trainer.steps()), (4, 8));
    drop(run);
    // The file has its first bytes again, so the run can be resumed.
    folder.succeeds("train --resume run");
}

/// Tokens that each evaluation counted.
fn validated(folder: &Folder, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder.path(name).join("metrics.jsonl")).expect("a file");
    let mut events = objects(&text);
    events.retain(|event| event["event"] == "eval");
    events.iter().map(|event| event["tokens"].clone()).collect()
}

#[test]
fn documents_and_the_validation_part_are_those_of_the_start() {
    let folder = Folder::with_text();
    let text: Vec<String> = (0..20).map(|i| corpus::stories(i, 120) + "<end>").collect();
    fs::write(folder.path("text.txt"), text.concat()).expect("a file");
    let train = "train --data text.txt --tokenizer bpe:270 --lambda 0.5:0.1 --regime reverse --batch 2 --context 16 \
                 --steps 2";
    for (name, flags) in [
        ("plain", "--valid-tokens all"),
        ("split", "--split-on <end> --valid-tokens all"),
        ("few", "--split-on <end> --valid-tokens 50"),
    ] {
        folder.succeeds(&format!("{train} {flags} --out {name}"));
        // Flags that agree with the run are accepted.
        folder.succeeds(&format!(
            "train --resume {name} {flags} --lambda .50:0.10 --regime reverse --steps 4 --extend"
        ));
        folder.succeeds(&format!("train --resume {name} --steps 5 --extend"));
        let counts = validated(&folder, name);
        assert_eq!(counts.len(), 3, "{name}");
        assert!(counts.iter().all(|n| *n == counts[0]), "{name}: {counts:?}");
    }
    let count = |name| validated(&folder, name)[0].as_u64().expect("a number");
    assert!(count("few") < count("split") && count("split") < count("plain"));
    for flags in [
        "--lambda 0.5",
        "--lambda 0.5:0.2",
        "--split-on <END>",
        "--valid-tokens 51",
    ] {
        folder.refuses(
            &format!("train --resume few {flags}"),
            2,
            &[flags, "run in few"],
        );
    }
}

/// Tensors of the trunk or of the heads, as bits.
fn bits(model: &Model, head: bool) -> BTreeMap<String, Vec<u32>> {
    let params = model.params().iter();
    let wanted = params.filter(|(name, _)| layout::is_head(name) == head);
    wanted
        .map(|(name, t)| {
            let bits = t.data().iter().map(|x| x.to_bits()).collect();
            (name.to_owned(), bits)
        })
        .collect()
}

#[test]
fn a_frozen_trunk_stays_frozen() {
    let folder = Folder::with_text();
    for kind in HeadKind::ALL {
        let mut config = config(kind);
        (config.freeze_trunk, config.regime) = (true, Regime::Joint);
        begin_with(&folder, "whole", kind, &config);
        let load = |name: &str| ModelDir::load(&folder.path(name)).expect("a model").0;
        let start = load("whole");
        copy(&folder.path("whole"), &folder.path("stopped"));
        folder.succeeds("train --resume whole");
        until(&folder, "stopped", 7);
        folder.succeeds("train --resume stopped");
        let what = format!("{kind:?}");
        same(&what, &folder.path("stopped"), &folder.path("whole"));
        let end = load("whole");
        assert_eq!(bits(&end, false), bits(&start, false), "{what}");
        assert_ne!(bits(&end, true), bits(&start, true), "{what}");
        for name in ["whole", "stopped"] {
            fs::remove_dir_all(folder.path(name)).expect("a directory");
        }
    }
}

#[test]
fn a_run_that_started_from_a_model_needs_it_no_more() {
    let folder = Folder::with_model();
    let start = "train --data text.txt --init model --freeze-trunk --head-kind medusa --heads 2 --batch 2 --context 12";
    folder.succeeds(&format!("{start} --steps 2 --out run"));
    fs::remove_dir_all(folder.path("model")).expect("a directory");
    for (flag, given, stored) in [
        ("--heads", "3", "--heads 2"),
        ("--head-kind", "parallel", "--head-kind medusa"),
        ("--preset", "tiny", "without that flag"),
        ("--tokenizer", "bytes", "without that flag"),
        ("--regime", "detached", "--regime joint"),
    ] {
        let given = format!("{flag} {given}");
        let words = format!("train --resume run {given}");
        folder.refuses(&words, 2, &[&given, stored, "run"]);
    }
    folder.succeeds("train --resume run --steps 3 --extend --init model --freeze-trunk --heads 2");
    begin(&folder, "other", HeadKind::Parallel);
    let frozen = "train --resume other --init model --freeze-trunk";
    folder.refuses(frozen, 2, &["run in other"]);
}
