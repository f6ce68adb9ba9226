//! Command lines that are refused with exit code 2, before anything is written.

use crate::about::COMMANDS;
use crate::support::{Folder, POSITIONS, assert_refused, with_arg};

const TRAIN: &str = "train --data text.txt --out run";

#[test]
fn numbers_that_no_run_can_have_are_refused_by_flag() {
    let folder = Folder::with_text();
    for (flags, names) in [
        ("--context 0", ["--context", "0"]),
        ("--batch 0", ["--batch", "0"]),
        ("--steps 0", ["--steps", "0"]),
        ("--context 16 --heads 16", ["--heads", "found 16"]),
        ("--context 16 --heads 17", ["--heads", "found 17"]),
        ("--context 1 --heads 1", ["--heads", "found 1"]),
        ("--heads 65", ["--heads", "64"]),
        (
            "--heads 1000000000000000000",
            ["--heads", "1000000000000000000"],
        ),
        ("--head-width 0", ["--head-width", "multiple"]),
        ("--head-width 33", ["--head-width", "33"]),
        ("--head-width 160", ["--head-width", "128"]),
        (
            "--head-width 1000000000000000000",
            ["--head-width", "1000000000000000000"],
        ),
        (
            "--head-width 18446744073709551615",
            ["--head-width", "18446744073709551615"],
        ),
        ("--lr 0", ["--lr", "0"]),
        ("--lr nan", ["--lr", "NaN"]),
        ("--lr inf", ["--lr", "inf"]),
        ("--lr=-1", ["--lr", "-1"]),
        ("--lambda=-0.5", ["--lambda", "-0.5"]),
        ("--lambda inf", ["--lambda", "inf"]),
        ("--lambda 0.3:-1", ["--lambda", "-1"]),
        ("--lambda 1:nan", ["--lambda", "nan"]),
        ("--lambda 1:2:3", ["--lambda", "2:3"]),
        ("--beta 0", ["--beta", "0"]),
        ("--beta nan", ["--beta", "NaN"]),
        ("--threads 0", ["--threads", "0"]),
        ("--threads 1000000000000", ["--threads", "1000000000000"]),
        (
            "--threads 99999999999999999999",
            ["--threads", "99999999999999999999"],
        ),
        // A batch too large for memory must be refused before it is allocated.
        (
            "--context 16 --batch 1000000000000000000",
            ["--batch", "1000000000000000000"],
        ),
        (
            "--context 16 --batch 18446744073709551615",
            ["--batch", "18446744073709551615"],
        ),
        (
            "--context 1000000000000000000",
            ["context", "1000000000000000000"],
        ),
        (
            "--context 18446744073709551615",
            ["context", "18446744073709551615"],
        ),
        ("--steps -1", ["--steps", "-1"]),
        ("--seed -1", ["--seed", "-1"]),
        ("--threads -2", ["--threads", "-2"]),
        ("--valid-tokens 0", ["--valid-tokens", "0"]),
        ("--valid-tokens -1", ["--valid-tokens", "all"]),
        ("--heads 0 --head-width 8", ["--head-width", "--heads 0"]),
        ("--heads 0 --head-kind medusa", ["--head-kind", "--heads 0"]),
        ("--steps many", ["--steps", "many"]),
        ("--seed 1.5", ["--seed", "1.5"]),
    ] {
        folder.refuses(&format!("{TRAIN} {flags}"), 2, &names);
    }
    folder.refuses("demo --steps 0", 2, &["--steps", "0"]);
    folder.refuses("demo --threads 0", 2, &["--threads", "0"]);
}

#[test]
fn what_does_not_fit_the_model_is_refused() {
    let folder = Folder::with_model();
    let (max, more) = (POSITIONS.to_string(), (POSITIONS + 1).to_string());
    let eval = "eval model --data text.txt --context";
    folder.refuses(&format!("{eval} 0"), 2, &["--context", "0", &max]);
    folder.refuses(&format!("{eval} {more}"), 2, &["--context", &max, &more]);
    folder.succeeds(&format!("{eval} {max}"));
    // Errors name the flags of the command itself.
    let agreement = "eval model --data text.txt --agreement --prompts 2";
    for (flags, names) in [
        (
            format!("--prompt-tokens {more}"),
            ["--prompt-tokens", &more],
        ),
        (
            format!("--prompt-tokens {max} --max-tokens 2"),
            ["--max-tokens", "--prompt-tokens"],
        ),
    ] {
        folder.refuses(&format!("{agreement} {flags}"), 2, &names);
    }
    let speed = "speed model --prompt a";
    folder.refuses(&format!("{speed} --repeats 0"), 2, &["--repeats", "0"]);
    folder.refuses(
        &format!("{speed} --max-tokens 0"),
        2,
        &["--max-tokens", "0"],
    );

    let generate = || folder.command("generate model --max-tokens 2 --prompt");
    folder.command_refuses(with_arg(generate(), ""), 2, &["prompt"]);
    let long = "x".repeat(POSITIONS + 1);
    folder.command_refuses(with_arg(generate(), &long), 2, &["prompt", &more, &max]);
    folder.succeeds(&format!("generate model --prompt {}", &long[1..]));
    for (flags, names) in [
        (
            "--max-tokens 49",
            ["--max-tokens: expected at most 48", "49"],
        ),
        (
            "--max-tokens 18446744073709551615",
            ["--max-tokens", "window"],
        ),
        ("--context 49", ["--context: expected 1 to 48", "49"]),
        ("--context 0", ["--context: expected 1 to 48", "found 0"]),
        ("--window 48", ["--window: expected 1 to 47", "48"]),
        (
            "--window 0 --context 9",
            ["--window: expected 1 to 8", "found 0"],
        ),
        ("--temperature=-1", ["--temperature", "-1"]),
        ("--top-p 0", ["--top-p", "0"]),
        ("--top-p 1e-45", ["--top-p", "1e-45"]),
        ("--top-p 1e-60", ["--top-p", "1e-60"]),
        ("--top-k -3", ["--top-k", "-3"]),
        ("--min-p 2", ["--min-p", "2"]),
        ("--samples 0", ["--samples", "0"]),
        ("--samples 4097", ["--samples", "4097"]),
    ] {
        folder.refuses(&format!("generate model --prompt a {flags}"), 2, &names);
    }
    let speed = "speed model --prompt-file text.txt --prompts 2 --prompt-tokens";
    for (len, names) in [
        ("0", ["--prompt-tokens 0", "at least one"]),
        ("9999", ["--prompt-tokens 9999", "at least one"]),
    ] {
        folder.refuses(&format!("{speed} {len}"), 2, &names);
    }
    for threads in ["0", "1000000000000"] {
        let names = ["--threads", threads];
        folder.refuses(&format!("{eval} 8 --threads {threads}"), 2, &names);
        folder.refuses(
            &format!("generate model --prompt a --threads {threads}"),
            2,
            &names,
        );
    }
}

#[test]
fn unknown_words_are_refused() {
    let folder = Folder::with_model();
    let train = |flags: &str| format!("{TRAIN} {flags}");
    for (words, names) in [
        ("fly", ["fly", "subcommand"]),
        ("--fly", ["--fly", "unexpected"]),
        ("train --out run", ["--data", "required"]),
        ("train --data text.txt", ["--out", "required"]),
        (&train("--fly"), ["--fly", "unexpected"]),
        (&train("--preset huge"), ["huge", "small"]),
        (&train("--head-kind medieval"), ["medieval", "parallel"]),
        (&train("--regime ancient"), ["ancient", "curriculum"]),
        (&train("--freeze-trunk"), ["--init", "required"]),
        (
            &train("--init model --preset small"),
            ["--preset", "cannot be used"],
        ),
        (
            &train("--init model --freeze-trunk --heads 0"),
            ["--freeze-trunk", "0 heads"],
        ),
        (
            &train("--init model --freeze-trunk --regime reverse"),
            ["--freeze-trunk", "reverse"],
        ),
        (&train("--init model --head-width 5"), ["--head-width", "5"]),
        ("export model", ["--out", "required"]),
        ("export model --out run --heads 4", ["--heads 4", "3 heads"]),
        (
            "export model --out run --heads 1 --without-heads",
            ["--heads", "cannot be used"],
        ),
        ("eval model", ["--data", "required"]),
        (
            "eval model --data text.txt --weights f16",
            ["f16", "f32, bf16, q8"],
        ),
        ("generate model", ["--prompt", "required"]),
        (
            "generate model --prompt a --prompt-file text.txt",
            ["--prompt-file", "cannot be used"],
        ),
        (
            "generate model --prompt a --decode slowly",
            ["slowly", "plain"],
        ),
        ("generate model --prompt a --draft=-1", ["--draft", "-1"]),
        ("generate model --prompt a --draft some", ["some", "auto"]),
        (
            "generate model --prompt a --stop-token end",
            ["--stop-token", "end"],
        ),
        (
            "generate model --prompt a --show-drafts --json",
            ["--show-drafts", "cannot be used"],
        ),
        ("speed model", ["--prompt", "required"]),
        (
            "speed model --prompt-file text.txt --prompts 3",
            ["--prompt-tokens", "required"],
        ),
        ("inspect", ["<DIR>", "required"]),
        ("inspect model model", ["model", "unexpected"]),
    ] {
        folder.refuses(words, 2, &names);
    }
    let nothing = folder.command("").output().expect("the binary");
    assert_eq!(nothing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("Usage:"));
}

#[test]
fn an_unknown_instruction_set_is_refused_whatever_the_command() {
    let folder = Folder::with_model();
    for words in [
        "inspect model",
        "eval model --data text.txt",
        "generate model --prompt a",
        "train --data text.txt --out run --context 16",
        "demo",
    ] {
        for wrong in ["sse9", "", "AVX2"] {
            let mut command = folder.command(words);
            command.env("FORETOKEN_ISA", wrong);
            let found = format!("`{wrong}`");
            folder.command_refuses(command, 2, &["FORETOKEN_ISA", "portable", &found]);
        }
    }
}

#[test]
fn a_directory_that_exists_is_kept_unless_force_is_given() {
    let folder = Folder::with_model();
    let train = "train --data text.txt --context 16 --batch 1 --steps 1 --out";
    folder.refuses(
        &format!("{train} model"),
        2,
        &["model", "exists", "--force"],
    );
    // A directory that is not a model's is not replaced, even with --force.
    std::fs::create_dir(folder.path("home")).expect("a directory");
    std::fs::write(folder.path("home/letter"), "kept").expect("a file");
    for flags in ["home --force", "home/letter --force", ". --force"] {
        folder.refuses(
            &format!("{train} {flags}"),
            2,
            &["cannot be replaced", "--force"],
        );
    }
    folder.refuses(&format!("{train} home"), 2, &["home", "exists"]);
    let nameless = with_arg(folder.command(train), "");
    folder.command_refuses(nameless, 2, &["--out"]);

    let others = |name: &str| {
        let mut contents = folder.contents();
        contents.retain(|path, _| !path.starts_with(folder.path(name)));
        contents
    };
    let (before, old) = (
        others("model"),
        std::fs::read(folder.path("model/config.json")),
    );
    let stale = folder.path("model/train_state.safetensors");
    std::fs::write(&stale, "of the run before").expect("a file");
    folder.succeeds(&format!("{train} model --force"));
    assert!(
        before == others("model"),
        "a replacement left something next to it"
    );
    assert_ne!(std::fs::read(&stale).expect("a file"), b"of the run before");
    let new = std::fs::read(folder.path("model/config.json")).expect("a file");
    assert_ne!(new, old.expect("a file"));
    folder.succeeds("inspect model");
}

#[test]
fn a_failed_run_keeps_the_directory_that_it_was_to_replace() {
    let folder = Folder::with_model();
    let train = "train --out model --force --context 16 --steps 1";
    folder.refuses(&format!("{train} --data missing.txt"), 1, &["missing.txt"]);
    folder.refuses(
        &format!("{train} --data text.txt --heads 65"),
        2,
        &["--heads"],
    );
    folder.refuses(
        &format!("{train} --data text.txt --batch 0"),
        2,
        &["--batch"],
    );
    let batch = "--batch 1000000000000000000";
    folder.refuses(&format!("{train} --data text.txt {batch}"), 2, &["--batch"]);
}

#[test]
fn every_command_has_help() {
    let folder = Folder::with_text();
    let help = folder.succeeds("--help");
    // Commands are listed after `Commands:`, each on a line that begins with two spaces and its name.
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| line.starts_with("  "));
    let names: Vec<&str> = listed
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for name in COMMANDS {
        assert!(names.contains(&name), "{help}");
    }
    for name in names {
        let words = if name == "help" {
            "help".to_owned()
        } else {
            format!("{name} --help")
        };
        let help = folder.succeeds(&words);
        assert!(help.contains("Usage: foretoken"), "{name}: {help}");
    }
    assert!(
        folder
            .succeeds("--version")
            .contains(env!("CARGO_PKG_VERSION"))
    );
    // A user reads the help to find out what is wrong, so a wrong environment must not prevent it.
    let mut command = folder.command("train --help");
    command.env("FORETOKEN_ISA", "sse9");
    assert!(command.output().expect("the binary").status.success());
}

#[test]
fn an_error_outlives_a_closed_standard_error() {
    let folder = Folder::with_model();
    for (words, code) in [
        ("inspect missing", 1),
        ("generate model --prompt a --threads 0", 2),
        ("generate model --prompt a --max-tokens 2", 0),
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = folder
            .command(words)
            .stderr(writer)
            .output()
            .expect("the binary");
        assert_eq!(output.status.code(), Some(code), "{words}: {output:?}");
    }
    let output = folder
        .command("inspect missing")
        .output()
        .expect("the binary");
    assert_refused("the same with a reader", &output, 1, &["missing"]);
}

/// Settings that are accepted but do not do what was probably meant are said in a line, once.
#[test]
fn settings_without_effect_are_announced() {
    let folder = Folder::with_model();
    std::fs::copy(folder.path("text.txt"), folder.path("copy.txt")).expect("a file");
    for (words, note) in [
        (
            "generate model --prompt a --max-tokens 5 --draft 9",
            "--draft 9",
        ),
        (
            "train --data text.txt --valid copy.txt --out run --batch 2 --context 16 --steps 1",
            "--valid",
        ),
    ] {
        let output = folder.command(words).output().expect("the binary");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words}: {errors}");
        let notes: Vec<_> = errors
            .lines()
            .filter(|line| line.starts_with("warning: "))
            .collect();
        assert!(
            notes.len() == 1 && notes[0].contains(note),
            "{words}: {errors}"
        );
    }
}

#[test]
fn more_threads_than_cores_are_a_warning() {
    let folder = Folder::with_model();
    let cores = std::thread::available_parallelism()
        .expect("a number")
        .get();
    let warning = |flag: &str| {
        let words = format!("eval model --data text.txt {flag}");
        let output = folder.command(&words).output().expect("the binary");
        let errors = String::from_utf8(output.stderr).expect("text");
        assert!(output.status.success(), "{words}: {errors}");
        errors
    };
    assert_eq!(warning(""), "");
    assert_eq!(warning(&format!("--threads {cores}")), "");
    let more = format!("--threads {}", cores + 1);
    let errors = warning(&more);
    let expected = format!("warning: {more}: this process runs {cores} at once");
    assert!(errors.starts_with(&expected), "{errors}");
    assert!(
        errors.contains(&format!("--threads {cores} gives the same result")),
        "{errors}"
    );
}
