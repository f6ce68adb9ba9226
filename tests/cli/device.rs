//! `--device`: a missing device is reported in one sentence, before anything is written.

use crate::support::Folder;

const COMMANDS: [&str; 3] = [
    "generate model --prompt a",
    "speed model --prompt a",
    "eval model --data text.txt",
];

#[test]
fn a_device_that_no_build_has_is_refused() {
    let folder = Folder::with_model();
    for words in COMMANDS {
        let words = format!("{words} --device abacus");
        folder.refuses(&words, 2, &["--device", "abacus", "cpu, cuda"]);
    }
    folder.refuses("inspect model --device cpu", 2, &["--device", "unexpected"]);
    let train = "train --data text.txt --out run --context 16 --steps 1 --device cuda";
    folder.refuses(train, 2, &["--device", "unexpected"]);
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_build_without_cuda_says_so() {
    let folder = Folder::with_model();
    for words in COMMANDS {
        let words = format!("{words} --device cuda");
        folder.refuses(&words, 2, &["--device cuda", "--features cuda"]);
    }
}

#[test]
fn the_cpu_is_the_default() {
    let folder = Folder::with_model();
    let words = "generate model --prompt a --max-tokens 9";
    let expected = folder.succeeds(words);
    assert_eq!(folder.succeeds(&format!("{words} --device cpu")), expected);
}

#[cfg(feature = "cuda")]
#[test]
fn a_machine_without_a_gpu_says_what_is_missing() {
    let Err(why) = foretoken::gpu::Device::open() else {
        return eprintln!("skipped: this machine has a GPU");
    };
    let folder = Folder::with_model();
    for words in COMMANDS {
        let words = format!("{words} --device cuda");
        folder.refuses(&words, 1, &[&why.to_string()]);
    }
}
