//! Any `tokenizer.json`, read and run by the public `tokenizers` library, and the bytes of every token.
//!
//! Three things are added here. Text is plain: special tokens are not looked for in it. A token has bytes of its own,
//! so text can be written token by token. And everything in a file is checked before it is used.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::file::{END_OF_TEXT, byte_characters};
use super::guard::{BROKEN, guard, short};

/// Maximum number of ids of a vocabulary. The largest public ones have about a quarter of a million; a file's claim
/// must not decide how much memory is reserved.
const MAX_IDS: usize = 1 << 22;

/// Names of the token that ends a text: the first that a file lists as special is taken.
const ENDS: [&str; 6] = [
    END_OF_TEXT,
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "[EOS]",
    "[SEP]",
];

/// Text that every tokenizer must encode when it is read, so that one that always panics is refused at once.
const PROBE: &str = "It's 2 words.";

/// How the file spells the bytes of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// Each byte as a visible character, after GPT-2.
    ByteLevel,
    /// A space as U+2581 and bytes outside the vocabulary as `<0x0A>`, after SentencePiece.
    SentencePiece,
    /// As only the library's decoder knows.
    Other,
}

/// A tokenizer of the public library.
pub(super) struct Library {
    pub(super) inner: tokenizers::Tokenizer,
    /// The file as it was read.
    pub(super) json: String,
    spelling: Spelling,
    /// By id; none for special tokens and unused ids.
    bytes: Vec<Option<Box<[u8]>>>,
    /// The token of each single byte in a byte-level vocabulary. Public ones lack bytes that their texts never had.
    byte_tokens: [Option<u32>; 256],
    pub(super) end_of_text: Option<u32>,
}

impl Library {
    /// Reads the text of a `tokenizer.json`, parsed as `file`.
    ///
    /// # Errors
    /// Returns a reason if the file describes no tokenizer, or one that cannot be used.
    pub(super) fn new(json: String, mut file: Value) -> Result<Arc<Self>, String> {
        let spelling = spelling_of(&file["decoder"]);
        // Text is never truncated or padded, and one text has one encoding.
        for field in ["/truncation", "/padding", "/model/dropout"] {
            if let Some(value) = file.pointer_mut(field) {
                *value = Value::Null;
            }
        }
        let read = || serde_json::from_value::<tokenizers::Tokenizer>(file);
        let mut inner = guard(read).map_err(|reason| format!("expected a tokenizer: {reason}"))?;
        inner.set_encode_special_tokens(true);

        let added = inner.get_added_tokens_decoder();
        let vocab = by_id(inner.get_vocab(true));
        let wrong = |token: &str, reason| Err(format!("token `{}`: {reason}", short(token)));
        let Some((last, token)) = vocab.last() else {
            return Err("expected a vocabulary, found no token".to_owned());
        };
        if *last as usize >= MAX_IDS {
            return wrong(
                token,
                format!("expected an id below {MAX_IDS}, found {last}"),
            );
        }
        if let Some(pair) = vocab.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let (id, token) = &pair[1];
            return wrong(token, format!("id {id} belongs to another token"));
        }
        let mut bytes: Vec<Option<Box<[u8]>>> = vec![None; *last as usize + 1];
        for (id, token) in &vocab {
            bytes[*id as usize] = match added.get(id) {
                Some(added) if added.special => None,
                Some(_) => Some(token.as_bytes().into()),
                None => Some(spelt(token, spelling)),
            };
        }
        let special = |id: &u32| added.get(id).is_some_and(|token| token.special);
        let end = |name: &&str| inner.token_to_id(name).filter(special);
        let end_of_text = ENDS.iter().find_map(end);
        let byte_tokens = match spelling {
            Spelling::ByteLevel => byte_characters().map(|c| inner.token_to_id(&c.to_string())),
            _ => [None; 256],
        };
        let library = Self {
            inner,
            json,
            spelling,
            bytes,
            byte_tokens,
            end_of_text,
        };
        // A vocabulary of few letters may lack those of the probe and still be useful.
        match library.encode(PROBE.as_bytes()) {
            Err((_, reason)) if reason == BROKEN => {
                Err(format!("cannot encode plain text: {reason}"))
            }
            _ => Ok(Arc::new(library)),
        }
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.bytes.len()
    }

    /// The tokens of one chunk of text.
    ///
    /// # Errors
    /// Returns the byte where it went wrong and the reason.
    pub(super) fn encode(&self, text: &[u8]) -> Result<Vec<u32>, (usize, String)> {
        let (mut tokens, mut place) = (Vec::new(), 0);
        for chunk in text.utf8_chunks() {
            if !chunk.valid().is_empty() {
                let encode = || self.inner.encode_fast(chunk.valid(), false);
                let encoding = guard(encode).map_err(|reason| (place, reason))?;
                if let Some(lost) = self.lost(chunk.valid(), encoding.get_ids()) {
                    let byte = chunk.valid().as_bytes()[lost];
                    let reason = format!("the vocabulary has no token for byte {byte:#04x}");
                    return Err((place + lost, reason));
                }
                tokens.extend_from_slice(encoding.get_ids());
            }
            place += chunk.valid().len();
            for (byte, at) in chunk.invalid().iter().zip(place..) {
                let Some(token) = self.byte_tokens[usize::from(*byte)] else {
                    let reason = format!(
                        "byte {byte:#04x} is not UTF-8, and the vocabulary has no token for it"
                    );
                    return Err((at, reason));
                };
                tokens.push(token);
            }
            place += chunk.invalid().len();
        }
        match tokens.iter().find(|id| **id as usize >= self.bytes.len()) {
            Some(id) => Err((0, format!("token {id} is outside the vocabulary"))),
            None => Ok(tokens),
        }
    }

    /// The first byte that the encoding of a text left out: the library silently drops a byte if the vocabulary has
    /// neither a token for it nor one for unknown text.
    fn lost(&self, text: &str, tokens: &[u32]) -> Option<usize> {
        let cannot_tell =
            self.spelling != Spelling::ByteLevel || self.inner.get_normalizer().is_some();
        let missing = |byte: &u8| self.byte_tokens[usize::from(*byte)].is_none();
        let place = text
            .as_bytes()
            .iter()
            .position(missing)
            .filter(|_| !cannot_tell)?;
        let bytes = |id: &u32| self.bytes.get(*id as usize)?.as_deref().map(<[u8]>::len);
        let spelt: usize = tokens.iter().filter_map(bytes).sum();
        (spelt < text.len()).then_some(place)
    }

    pub(super) fn decode(&self, tokens: &[u32]) -> Vec<u8> {
        if self.spelling != Spelling::Other {
            let bytes = |id: &u32| self.bytes.get(*id as usize)?.as_deref();
            return tokens.iter().filter_map(bytes).flatten().copied().collect();
        }
        // The library decodes nothing at all if one id is unknown.
        let known = |id: &&u32| (**id as usize) < self.bytes.len();
        let known: Vec<u32> = tokens.iter().filter(known).copied().collect();
        let text = guard(|| self.inner.decode(&known, true));
        text.unwrap_or_default().into_bytes()
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Library")
            .field("spelling", &self.spelling)
            .field("vocab_size", &self.bytes.len())
            .field("end_of_text", &self.end_of_text)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Library {
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json
    }
}

impl Eq for Library {}

/// A vocabulary's tokens in the order of their ids.
pub(super) fn by_id(vocab: impl IntoIterator<Item = (String, u32)>) -> Vec<(u32, String)> {
    let mut tokens: Vec<_> = vocab.into_iter().map(|(token, id)| (id, token)).collect();
    tokens.sort_unstable();
    tokens
}

/// The spelling that a decoder undoes.
fn spelling_of(decoder: &Value) -> Spelling {
    let alone = std::slice::from_ref(decoder);
    let steps = decoder["decoders"].as_array().map_or(alone, Vec::as_slice);
    let space = |step: &Value| {
        step["pattern"]["String"] == "\u{2581}" && step["content"] == " "
            || step["type"] == "Metaspace" && step["replacement"] == "\u{2581}"
    };
    let pieces = ["Replace", "Metaspace", "ByteFallback", "Fuse", "Strip"];
    let piece = |step: &Value| pieces.iter().any(|kind| step["type"] == *kind);
    match steps {
        [step] if step["type"] == "ByteLevel" => Spelling::ByteLevel,
        _ if steps.iter().all(piece) && steps.iter().any(space) => Spelling::SentencePiece,
        _ => Spelling::Other,
    }
}

/// The bytes of a token's spelling.
fn spelt(token: &str, spelling: Spelling) -> Box<[u8]> {
    match spelling {
        Spelling::ByteLevel => {
            let characters = byte_characters();
            let byte = |c: char| characters.iter().position(|x| *x == c).map(|b| b as u8);
            let bytes: Option<Vec<u8>> = token.chars().map(byte).collect();
            // A token that does not spell bytes stands for its own text.
            bytes.unwrap_or_else(|| token.into()).into()
        }
        Spelling::SentencePiece => {
            let hex = token.strip_prefix("<0x").and_then(|x| x.strip_suffix('>'));
            let byte = hex
                .filter(|x| x.len() == 2)
                .map(|x| u8::from_str_radix(x, 16));
            match byte {
                Some(Ok(byte)) => [byte].into(),
                _ => token.replace('\u{2581}', " ").as_bytes().into(),
            }
        }
        Spelling::Other => token.as_bytes().into(),
    }
}

#[cfg(test)]
mod tests;
