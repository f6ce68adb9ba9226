use std::fs;
use std::io::Cursor;

use super::*;
use crate::data::{RandomWindows, Tokens, open_tokens};

fn written(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// The bytes of a token file of these texts.
fn encoded(texts: &[PathBuf], tokenizer: &Tokenizer, separator: Option<&str>) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let texts = TextFiles::new(texts, separator).unwrap();
    write_tokens(Path::new("out"), &mut out, &texts, tokenizer).unwrap();
    out.into_inner()
}

/// A vocabulary of more than 65,536 ids, so that tokens have four bytes.
#[cfg(feature = "tokenizers")]
fn wide() -> Tokenizer {
    let mut file: serde_json::Value = serde_json::from_str(&Tokenizer::bytes().to_json()).unwrap();
    file["model"]["vocab"]["far away"] = serde_json::json!(70_000);
    let folder = tempfile::tempdir().unwrap();
    Tokenizer::load(&written(
        folder.path(),
        "wide.json",
        file.to_string().as_bytes(),
    ))
    .unwrap()
}

#[test]
fn the_documented_bytes_are_the_real_ones() {
    let folder = tempfile::tempdir().unwrap();
    let texts = [
        written(folder.path(), "a", b"ab\xff"),
        written(folder.path(), "b", b"c"),
    ];
    let tokenizer = Tokenizer::bytes();
    let mut expected = vec![
        0x89, b'F', b'T', b'O', b'K', 13, 10, 26, 1, 0, 0, 0, 2, 0, 0, 0,
    ];
    expected.extend([5, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0]);
    expected.extend(tokenizer.sha256());
    expected.extend([97, 0, 98, 0, 255, 0, 0, 1, 99, 0]);
    assert_eq!(encoded(&texts, &tokenizer, None), expected);
}

#[test]
fn a_text_and_its_token_file_give_the_same_windows() {
    let folder = tempfile::tempdir().unwrap();
    let text = b"one two|three \xff four|".repeat(20_000);
    let texts = [
        written(folder.path(), "a", &text),
        written(folder.path(), "b", b"five"),
    ];
    let tokenizers = [
        (Tokenizer::bytes(), 2),
        #[cfg(feature = "tokenizers")]
        (wide(), 4),
    ];
    for (tokenizer, width) in tokenizers {
        let bytes = encoded(&texts, &tokenizer, Some("|"));
        let path = written(folder.path(), "tokens.bin", &bytes);
        let memory = open_tokens(&texts, &tokenizer, Some("|")).unwrap();
        let file = open_tokens(&[path], &tokenizer, None).unwrap();
        assert!(file.in_file() && !memory.in_file());
        assert_eq!(bytes.len(), HEADER + width * memory.len());
        // More than the 64 KiB that are read at once.
        assert!(bytes.len() > 4 << 16);
        assert_eq!(
            file.first(usize::MAX).unwrap(),
            memory.first(usize::MAX).unwrap()
        );
        let parts = |tokens: &Tokens| tokens.split().1.first(usize::MAX).unwrap();
        assert_eq!(parts(&file), parts(&memory));
        let windows = |tokens: &Tokens| RandomWindows::new(tokens.split().0, 100, 7, 3).unwrap();
        for step in [0, 1, 1000] {
            let batch = windows(&file).batch(step).unwrap();
            assert_eq!(batch, windows(&memory).batch(step).unwrap());
        }
    }
}

#[test]
fn files_that_lie_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::bytes();
    let texts = [written(folder.path(), "a", b"some text")];
    let good = encoded(&texts, &tokenizer, None);
    let path = folder.path().join("tokens.bin");
    let reason = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let error = TokenFile::open(&path, &tokenizer).unwrap_err().to_string();
        assert!(
            error.contains("tokens.bin") && error.lines().count() == 1,
            "{error}"
        );
        error
    };
    let edited = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    assert!(reason(b"").contains("empty"));
    assert!(reason(&edited(0, b"x")).contains("another kind"));
    for cut in [8, 20, 63, 64, good.len() - 2, good.len() - 1] {
        assert!(reason(&good[..cut]).contains("truncated"), "{cut}");
    }
    assert!(reason(&[&good[..], &[0]].concat()).contains("too long"));
    assert!(reason(&edited(8, &[9])).contains("version: expected 1, found 9"));
    for width in [0, 1, 3, 4, 255] {
        assert!(
            reason(&edited(12, &[width])).contains("bytes a token"),
            "{width}"
        );
    }
    for count in [0, 8, 10, u64::MAX, u64::MAX / 2, 1 << 62] {
        let error = reason(&edited(16, &count.to_le_bytes()));
        assert!(
            error.contains(&count.to_string()) && error.contains("82"),
            "{error}"
        );
    }
    for vocab in [0, 256, 65_537, u64::MAX] {
        let error = reason(&edited(24, &u64::to_le_bytes(vocab)));
        assert!(error.contains(&vocab.to_string()), "{error}");
    }
    let error = reason(&edited(40, &[1, 2, 3]));
    assert!(error.contains("sha256") && error.contains("257"), "{error}");
    // A token outside the vocabulary is found when it is read.
    fs::write(&path, edited(66, &[1, 1])).unwrap();
    let tokens = Tokens::from(TokenFile::open(&path, &tokenizer).unwrap());
    let error = tokens.first(9).unwrap_err().to_string();
    assert!(
        error.contains("token 1: expected an id below 257, found 257"),
        "{error}"
    );
    assert_eq!(tokens.first(1).unwrap(), [115]);
    // And so is a file that is shortened.
    fs::write(&path, &good).unwrap();
    let tokens = Tokens::from(TokenFile::open(&path, &tokenizer).unwrap());
    fs::write(&path, &good[..70]).unwrap();
    assert!(matches!(tokens.first(9), Err(Error::Io { .. })));
    assert!(TokenFile::open(folder.path(), &tokenizer).is_err());
    assert!(TokenFile::open(&folder.path().join("missing"), &tokenizer).is_err());
}

#[test]
fn a_token_file_goes_alone() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = Tokenizer::bytes();
    let text = written(folder.path(), "a", b"some text");
    let tokens = written(
        folder.path(),
        "tokens.bin",
        &encoded(std::slice::from_ref(&text), &tokenizer, None),
    );
    for (paths, separator) in [
        (vec![text.clone(), tokens.clone()], None),
        (vec![tokens.clone(), tokens.clone()], None),
        (vec![tokens.clone()], Some("|")),
    ] {
        let error = open_tokens(&paths, &tokenizer, separator).unwrap_err();
        let alone = matches!(error, Error::Setting { field: "data", .. });
        assert!(alone && error.to_string().contains("tokens.bin"), "{error}");
    }
    // Nor is it encoded as a text.
    let mut out = Cursor::new(Vec::new());
    let texts = TextFiles::new(&[tokens], None).unwrap();
    let error = write_tokens(Path::new("out"), &mut out, &texts, &tokenizer).unwrap_err();
    assert!(error.to_string().contains("token file"), "{error}");
}
