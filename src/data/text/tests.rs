use super::*;
use std::fs;

/// The tokens of some files.
fn read_tokens(paths: &[PathBuf], tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    open_tokens(paths, tokenizer, None)?.first(usize::MAX)
}

fn written(directory: &tempfile::TempDir, name: &str, text: &[u8]) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn files_are_joined_by_one_end_of_text() {
    let directory = tempfile::tempdir().unwrap();
    let paths = [
        written(&directory, "a", b"ab"),
        written(&directory, "b", b"\xff\n"),
        written(&directory, "c", b"c"),
    ];
    let tokenizer = Tokenizer::bytes();
    let end = tokenizer.end_of_text().unwrap();
    let joined = [97, 98, end, 255, 10, end, 99];
    assert_eq!(read_tokens(&paths, &tokenizer).unwrap(), joined);
    assert_eq!(read_tokens(&paths[..1], &tokenizer).unwrap(), joined[..2]);
}

#[test]
fn a_refused_file_is_named_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let good = written(&directory, "good", b"text");
    let empty = written(&directory, "empty", b"");
    let missing = directory.path().join("missing");
    let folder = directory.path().to_owned();
    for (path, reason) in [(empty, "empty"), (missing, "read"), (folder, "directory")] {
        let error = read_tokens(&[good.clone(), path.clone()], &Tokenizer::bytes()).unwrap_err();
        let sentence = error.to_string();
        assert!(sentence.contains(&path.display().to_string()), "{sentence}");
        assert!(sentence.contains(reason), "{sentence}");
        assert_eq!(sentence.lines().count(), 1, "{sentence}");
    }
}

#[test]
fn no_files_are_refused() {
    let error = read_tokens(&[], &Tokenizer::bytes()).unwrap_err();
    assert!(
        matches!(error, Error::Setting { field: "data", .. }),
        "{error:?}"
    );
}

#[test]
fn a_length_check_names_both_numbers() {
    check_length("the text", 5, 4).unwrap();
    check_length("the text", 2, 1).unwrap();
    let sentence = check_length("the text", 4, 4).unwrap_err().to_string();
    assert!(
        sentence.starts_with("the text has 4 tokens, expected at least 5"),
        "{sentence}"
    );
    check_length("the text", 0, usize::MAX).unwrap_err();
    check_length("the text", 4, 0).unwrap_err();
}

#[test]
fn separators_become_the_end_of_text() {
    let directory = tempfile::tempdir().unwrap();
    let paths = [
        written(&directory, "a", b"ab<|>c"),
        written(&directory, "b", b"<|>d<|>"),
        written(&directory, "c", b"e"),
    ];
    let tokenizer = Tokenizer::bytes();
    let end = tokenizer.end_of_text().unwrap();
    let tokens = open_tokens(&paths, &tokenizer, Some("<|>")).unwrap();
    // One between a and b, one for the separator that begins b; the one that ends b stands between b and c.
    let expected = [97, 98, end, 99, end, end, 100, end, 101];
    assert_eq!(tokens.first(100).unwrap(), expected);
    let plain = open_tokens(&paths[..1], &tokenizer, None).unwrap();
    assert_eq!(
        plain.first(100).unwrap(),
        tokenizer.encode(b"ab<|>c").unwrap()
    );
    let chunks: Vec<Vec<u8>> = TextFiles::new(&paths, Some("<|>"))
        .unwrap()
        .chunks()
        .map(Result::unwrap)
        .collect();
    let documents: [&[u8]; 5] = [b"ab", b"c", b"", b"d", b"e"];
    assert_eq!(chunks, documents);
    assert!(open_tokens(&paths, &tokenizer, Some("")).is_err());
}
