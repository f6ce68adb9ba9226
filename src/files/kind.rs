//! What a file seems to be, by its first bytes.
//!
//! A download that went wrong leaves a file of the right name and the wrong kind. Its bytes then make no sense to a
//! reader, and as a text they would be learned. Every reader of files from outside asks here first.

use std::path::Path;

use crate::{Error, Result};

/// Bytes from the start of a file that are looked at: a tar archive has its mark at byte 257.
pub(crate) const START: usize = 512;

/// A kind of file, and how to make something readable of it.
struct Kind {
    name: &'static str,
    remedy: &'static str,
}

const UNPACK: &str = "unpack it first";
const CONVERT: &str = "convert it to safetensors first";
const UTF8: &str = "convert it to UTF-8 first, for example with iconv";
const PROSE: &str = "extract its text first";
const OTHER: &str = "check the path";

/// Kinds that begin with fixed bytes, which no text in UTF-8 begins with by chance.
const MAGIC: [(&[u8], Kind); 20] = [
    (
        b"version https://git-lfs.github.com/spec/",
        kind(
            "a Git LFS pointer",
            "fetch the file that it stands for with `git lfs pull`",
        ),
    ),
    (
        b"/annex/objects/",
        kind(
            "a git-annex pointer",
            "fetch the file that it stands for with `git annex get`",
        ),
    ),
    (
        b"PK\x03\x04",
        kind(
            "a zip archive",
            "unpack it first, or if it holds the weights of PyTorch, convert them to safetensors",
        ),
    ),
    (b"\x1f\x8b\x08", kind("a gzip file", UNPACK)),
    (b"\x28\xb5\x2f\xfd", kind("a Zstandard file", UNPACK)),
    (b"\xfd7zXZ\0", kind("an xz file", UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", kind("a 7z archive", UNPACK)),
    (b"\x04\x22\x4d\x18", kind("an LZ4 file", UNPACK)),
    (b"Rar!\x1a\x07", kind("a RAR archive", UNPACK)),
    (b"\xff\xfe\0\0", kind("a text in UTF-32", UTF8)),
    (b"\0\0\xfe\xff", kind("a text in UTF-32", UTF8)),
    (b"%PDF-", kind("a PDF document", PROSE)),
    (b"\x89PNG\r\n\x1a\n", kind("a PNG picture", OTHER)),
    (b"\xff\xd8\xff", kind("a JPEG picture", OTHER)),
    (b"\x7fELF", kind("a program", OTHER)),
    (b"\x93NUMPY", kind("a NumPy array", CONVERT)),
    (b"\x89HDF\r\n\x1a\n", kind("an HDF5 file", CONVERT)),
    (b"PAR1\x15", kind("a Parquet file", PROSE)),
    (b"SQLite format 3\0", kind("an SQLite database", PROSE)),
    (
        b"\x89FTOK\r\n\x1a",
        kind("a token file", "give it to --data alone"),
    ),
];

const fn kind(name: &'static str, remedy: &'static str) -> Kind {
    Kind { name, remedy }
}

/// A file's kind as its reader expects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Safetensors,
    /// JSON, or JSON lines.
    Json,
    TokenFile,
    /// A text to learn from or to measure.
    Text,
    /// A text to continue.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    Prompt,
}

impl Expected {
    fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "a safetensors file",
            Self::Json => "JSON",
            Self::TokenFile => "a token file",
            Self::Text => Error::TEXT,
            Self::Prompt => "a text to continue",
        }
    }
}

/// Refuses a file that seems to be of another kind, by its first bytes, at most [`START`]. What is not recognised
/// passes: the reader itself says what is wrong with it.
///
/// # Errors
/// Returns [`Error::Kind`].
pub(crate) fn expect_kind(path: &Path, start: &[u8], expected: Expected) -> Result<()> {
    let found = match expected {
        // The length of a header may look like the first bytes of anything.
        Expected::Safetensors if is_safetensors(start) => None,
        _ => kind_of(start),
    };
    match found {
        None => Ok(()),
        Some(found) => Err(Error::Kind {
            path: path.to_owned(),
            expected: expected.name(),
            found: found.name,
            remedy: found.remedy,
        }),
    }
}

fn kind_of(start: &[u8]) -> Option<Kind> {
    if is_safetensors(start) {
        return Some(kind("a safetensors file", OTHER));
    }
    if let Some((_, found)) = MAGIC
        .into_iter()
        .find(|(magic, _)| start.starts_with(magic))
    {
        return Some(found);
    }
    // These begin with letters, as a text might, so more is asked of them.
    match start {
        // A mark of the byte order alone is no text.
        [0xff, 0xfe, _, _, ..] | [0xfe, 0xff, _, _, ..] => Some(kind("a text in UTF-16", UTF8)),
        [
            b'B',
            b'Z',
            b'h',
            b'1'..=b'9',
            b'1',
            b'A',
            b'Y',
            b'&',
            b'S',
            b'Y',
            ..,
        ] => Some(kind("a bzip2 file", UNPACK)),
        [b'G', b'G', b'U', b'F', 1..=9, 0, 0, 0, ..] => Some(kind("a GGUF file", CONVERT)),
        [0x80, 2..=5, b'}' | b']' | b'c' | 0x8a | 0x95, ..] => {
            Some(kind("a pickle of Python", CONVERT))
        }
        _ if start.get(257..262) == Some(b"ustar") => Some(kind("a tar archive", UNPACK)),
        _ if is_html(start) => Some(kind(
            "an HTML page",
            "if a server sent it in place of a file, download the file itself",
        )),
        _ if is_utf16(start) => Some(kind("a text in UTF-16", UTF8)),
        _ => None,
    }
}

/// The length of a header, which is not enormous, and its first bracket.
fn is_safetensors(start: &[u8]) -> bool {
    matches!(start, [_, _, _, _, 0, 0, 0, 0, b'{', ..])
}

/// Whether a text begins like a page, after spaces and a byte-order mark.
fn is_html(start: &[u8]) -> bool {
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let text = text.trim_ascii_start();
    let begins = |with: &[u8]| {
        text.get(..with.len())
            .is_some_and(|text| text.eq_ignore_ascii_case(with))
    };
    let ends = |at: usize| {
        text.get(at)
            .is_none_or(|c| c.is_ascii_whitespace() || *c == b'>')
    };
    begins(b"<!doctype html") || begins(b"<html") && ends(5)
}

/// Whether every other byte is zero and those between are a text in ASCII: UTF-16 without a byte-order mark.
fn is_utf16(start: &[u8]) -> bool {
    let (pairs, _) = start.as_chunks::<2>();
    let letter = |c: u8| c.is_ascii_graphic() || c.is_ascii_whitespace();
    let big = |pair: &[u8; 2]| pair[0] == 0 && letter(pair[1]);
    let little = |pair: &[u8; 2]| pair[1] == 0 && letter(pair[0]);
    pairs.len() >= 4 && (pairs.iter().all(big) || pairs.iter().all(little))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Expected; 5] = [
        Expected::Prompt,
        Expected::Safetensors,
        Expected::Json,
        Expected::TokenFile,
        Expected::Text,
    ];

    fn message(start: &[u8], expected: Expected) -> Option<String> {
        let error = expect_kind(Path::new("f"), start, expected).err()?;
        assert!(matches!(error, Error::Kind { .. }));
        Some(error.to_string())
    }

    #[test]
    fn a_wrong_kind_is_named_to_every_reader() {
        let mut tar = vec![0; 262];
        tar[..8].copy_from_slice(b"book.txt");
        tar[257..].copy_from_slice(b"ustar");
        let utf16 = |order: fn(u16) -> [u8; 2]| {
            "a text\r\n"
                .encode_utf16()
                .flat_map(order)
                .collect::<Vec<u8>>()
        };
        let (little, big) = (utf16(u16::to_le_bytes), utf16(u16::to_be_bytes));
        let marked = [b"\xff\xfe", &little[..]].concat();
        for (start, found, remedy) in [
            (
                &b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"[..],
                "a Git LFS pointer",
                "git lfs pull",
            ),
            (b"<!DOCTYPE html><html lang=en>", "an HTML page", "download"),
            (b"\xef\xbb\xbf\n  <HTML>", "an HTML page", "download"),
            // Local file header of a zip archive, then member header of a gzip file (RFC 1952).
            (b"PK\x03\x04\x14\0\x08\0\x08\0", "a zip archive", "unpack"),
            (
                b"\x1f\x8b\x08\x08\x5e\x5e\x5e\x5e\0\x03",
                "a gzip file",
                "unpack",
            ),
            (b"BZh91AY&SY", "a bzip2 file", "unpack"),
            (b"\x28\xb5\x2f\xfd\x04", "a Zstandard file", "unpack"),
            (b"\xfd7zXZ\0\0\x04", "an xz file", "unpack"),
            (&tar, "a tar archive", "unpack"),
            (&marked, "a text in UTF-16", "UTF-8"),
            (&little, "a text in UTF-16", "UTF-8"),
            (&big, "a text in UTF-16", "UTF-8"),
            (b"GGUF\x03\0\0\0", "a GGUF file", "safetensors"),
            (b"\x80\x02}q\0", "a pickle of Python", "safetensors"),
            (b"%PDF-1.7", "a PDF document", "text"),
        ] {
            for expected in ALL {
                let said = message(start, expected).unwrap_or_default();
                let words = format!(
                    "f: expected {}, found what seems to be {found}",
                    expected.name()
                );
                assert!(said.starts_with(&words) && said.contains(remedy), "{said}");
            }
        }
    }

    #[test]
    fn texts_and_files_of_the_right_kind_pass() {
        for start in [
            &b""[..],
            b"a",
            b"PK",
            b"version 2 of the story",
            b"{\"a\": 1}",
            b"GGUF is a format",
            b"BZh is a name",
            b"<htmlish>",
            b"<p>",
            b"\0\0\0\0\0\0\0\0\0\0",
            b"\xef\xbb\xbftext",
            b"h\0i\0",
            "Käse".as_bytes(),
        ] {
            for expected in ALL {
                assert_eq!(message(start, expected), None, "{start:?}");
            }
        }
        // A header of 0x088b1f bytes begins like a gzip file.
        let weights = b"\x1f\x8b\x08\0\0\0\0\0{\"a\":";
        assert_eq!(message(weights, Expected::Safetensors), None);
        for expected in [Expected::Json, Expected::Text] {
            let said = message(weights, expected).unwrap();
            assert!(said.contains("a safetensors file"), "{said}");
        }
    }
}
