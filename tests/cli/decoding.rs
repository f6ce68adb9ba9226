//! What `generate` and `speed` print: stop strings, several continuations, windows, colours, measurements.

use crate::support::{Folder, assert_keys, objects};
use serde_json::Value;

const GENERATE: &str = "generate model --prompt Once --max-tokens 40";

fn json(folder: &Folder, words: &str) -> Vec<Value> {
    objects(&folder.succeeds(&format!("{words} --json")))
}

fn text(report: &Value) -> String {
    report["text"].as_str().expect("text").to_owned()
}

#[test]
fn a_stop_string_ends_every_way_alike() {
    let folder = Folder::with_model();
    let whole = text(&json(&folder, GENERATE)[0]);
    // A word from the middle, which is one argument on a command line.
    let words: Vec<&str> = whole[whole.len() / 3..].split_whitespace().collect();
    let stop = words.iter().max_by_key(|word| word.len()).expect("a word");
    let end = whole.find(stop).expect("it is there");
    let words = format!("{GENERATE} --stop nowhere --stop {stop}");
    for way in ["--decode plain", "--draft 3", "--draft auto"] {
        let report = &json(&folder, &format!("{words} {way}"))[0];
        assert_eq!(text(report), whole[..end], "{way}");
        assert!(report["new_tokens"].as_u64().expect("a count") < 40);
        let streamed = folder.succeeds(&format!("{words} {way}"));
        assert_eq!(streamed, format!("{}\n", &whole[..end]), "{way}");
    }
    let first = &json(&folder, GENERATE)[0]["tokens"][5];
    let report = &json(&folder, &format!("{GENERATE} --stop-token {first}"))[0];
    let tokens = report["tokens"].as_array().expect("a list");
    assert!(tokens.len() <= 6 && tokens.last() == Some(first));
}

#[test]
fn samples_are_those_of_their_seeds_alone() {
    let folder = Folder::with_model();
    let words = format!("{GENERATE} --temperature 1 --draft 2");
    let together = json(&folder, &format!("{words} --samples 3 --seed 5"));
    assert_eq!(together.len(), 3);
    for (i, report) in together.iter().enumerate() {
        let alone = &json(&folder, &format!("{words} --seed {}", 5 + i))[0];
        assert_eq!(
            (report["sample"].as_u64(), &report["tokens"]),
            (Some(i as u64), &alone["tokens"])
        );
        assert_eq!(report["accepted_by_depth"], alone["accepted_by_depth"]);
    }
    assert_ne!(together[0]["tokens"], together[1]["tokens"]);
    let printed = folder.succeeds(&format!("{words} --samples 2 --seed 5"));
    let expected = [0, 1].map(|i: usize| format!("== {i}\n{}\n", text(&together[i])));
    assert_eq!(printed, expected.concat());
}

#[test]
fn a_window_goes_on_where_the_context_ends() {
    let folder = Folder::with_model();
    let words = "generate model --prompt Once --window 8 --max-tokens 150";
    let plain = &json(&folder, &format!("{words} --decode plain"))[0];
    assert_eq!(plain["new_tokens"], 150);
    let fast = &json(&folder, &format!("{words} --draft 3"))[0];
    assert_eq!(fast["tokens"], plain["tokens"]);
}

/// Removes the colours, and the text that is struck through.
fn without_colours(shown: &str) -> String {
    let mut text = String::new();
    let mut rest = shown;
    while let Some(at) = rest.find("\x1b[") {
        text += &rest[..at];
        let (code, after) = rest[at + 2..].split_once('m').expect("an end of the code");
        rest = after;
        if code == "31;9" {
            rest = after.split_once("\x1b[0m").expect("an end of the colour").1;
        }
    }
    text + rest
}

#[test]
fn colours_are_all_that_show_drafts_adds() {
    let folder = Folder::with_model();
    for draft in ["0", "3", "auto"] {
        let words = format!("{GENERATE} --draft {draft}");
        let output = folder
            .command(&format!("{words} --show-drafts --color always"))
            .output()
            .expect("the binary");
        let shown = String::from_utf8(output.stdout).expect("text");
        assert_eq!(without_colours(&shown), folder.succeeds(&words));
        let rejected = shown.contains("\x1b[31;9m");
        match draft {
            "0" => assert!(!rejected && !shown.contains('\x1b')),
            // An untrained model guesses wrong sooner or later.
            "3" => assert!(rejected),
            _ => {}
        }
        let legend = String::from_utf8(output.stderr).expect("text");
        assert!(
            legend.contains("trunk") && legend.contains("depth 3") && legend.contains("rejected")
        );
    }
}

#[test]
fn rejection_generates_and_is_seeded() {
    let folder = Folder::with_model();
    let words = format!("{GENERATE} --decode rejection --temperature 0.9 --draft 2 --seed 4");
    let (a, b) = (json(&folder, &words), json(&folder, &words));
    assert_eq!(a[0]["tokens"], b[0]["tokens"]);
    let greedy = json(&folder, &format!("{GENERATE} --decode rejection"));
    assert_eq!(greedy[0]["tokens"], json(&folder, GENERATE)[0]["tokens"]);
}

#[test]
fn speed_reports_what_it_measured() {
    let folder = Folder::with_model();
    let words = "speed model --prompt-file text.txt --prompts 3 --prompt-tokens 10 --max-tokens 20 --repeats 1";
    for draft in ["auto", "2"] {
        let report = &json(&folder, &format!("{words} --draft {draft}"))[0];
        assert_keys(
            report,
            "plain speculative speedup predicted_speedup row_cost head_ms head_relative read_gb_per_s bandwidth_share \
             prompts new_tokens identical",
        );
        assert_keys(&report["plain"], "tokens_per_s weights_gb_per_s");
        assert_keys(
            &report["speculative"],
            "tokens_per_s tokens_per_step acceptance_by_depth",
        );
        assert_eq!(
            (&report["identical"], &report["new_tokens"]),
            (&true.into(), &60.into())
        );
        let rows = report["row_cost"].as_array().expect("a list");
        assert_eq!(rows.len(), 16);
        assert_eq!(
            (&rows[0]["relative"], &rows[15]["rows"]),
            (&1.0.into(), &16.into())
        );
    }
    let text = folder.succeeds(&format!("{words} --draft 3"));
    for word in [
        "plain",
        "speculative",
        "speed-up",
        "depth",
        "rows",
        "head",
        "GB/s",
        "identical",
    ] {
        assert!(text.contains(word), "{text}");
    }
}

/// On prompts cut from a text, the predicted counts for a fixed number of drafts are those that `generate` reports.
#[test]
fn agreement_is_what_generate_reports() {
    let folder = Folder::with_model();
    // Random weights would hardly ever have a draft accepted, so that nothing would be compared.
    folder.succeeds(
        "train --init model --data text.txt --batch 8 --context 16 --steps 300 --lr 0.01 --out learned",
    );
    let flags = "--prompts 3 --prompt-tokens 9 --max-tokens 25";
    let report = &json(
        &folder,
        &format!("eval learned --data text.txt --agreement {flags}"),
    )[0];
    let agreement = &report["agreement"];
    assert_keys(agreement, "prompts new_tokens agreement_by_depth fixed");
    let fixed = agreement["fixed"].as_array().expect("a list");
    assert_eq!(fixed.len(), 3);
    let text = std::fs::read(folder.path("text.txt")).expect("a file");
    for fixed in fixed {
        let (mut steps, mut drafted, mut accepted) = (0, [0_u64; 3], [0_u64; 3]);
        for i in 0..3 {
            let start = (text.len() - 9) * i / 3;
            std::fs::write(folder.path("prompt.txt"), &text[start..start + 9]).expect("a file");
            let words = format!(
                "generate learned --prompt-file prompt.txt --max-tokens 25 --draft {}",
                fixed["drafts"]
            );
            let report = &json(&folder, &words)[0];
            steps += report["steps"].as_u64().expect("a count");
            for (sums, key) in [
                (&mut drafted, "drafted_by_depth"),
                (&mut accepted, "accepted_by_depth"),
            ] {
                for (sum, n) in sums.iter_mut().zip(report[key].as_array().expect("a list")) {
                    *sum += n.as_u64().expect("a count");
                }
            }
        }
        let depth = fixed["drafts"].as_u64().expect("a count") as usize;
        let sum = |counts: &[u64]| counts.iter().sum::<u64>();
        assert!(
            sum(&accepted) > 0 && sum(&accepted) < sum(&drafted),
            "{fixed}"
        );
        assert_eq!(fixed["steps"], steps);
        assert_eq!(fixed["drafted_by_depth"], Value::from(&drafted[..depth]));
        assert_eq!(fixed["accepted_by_depth"], Value::from(&accepted[..depth]));
    }
    folder.refuses(
        "eval model --data text.txt --prompts 3",
        2,
        &["--agreement", "required"],
    );
    let long = "eval model --data text.txt --agreement --prompt-tokens 40 --max-tokens 20";
    folder.refuses(long, 2, &["40", "--max-tokens", "48", "found 20"]);
    // Refused before the evaluation, which is not possible either.
    folder.refuses(&format!("{long} --context 49"), 2, &["--max-tokens", "20"]);
    let none = "eval model --data text.txt --agreement --prompts 0 --context 49";
    folder.refuses(none, 2, &["--prompts 0"]);
}
