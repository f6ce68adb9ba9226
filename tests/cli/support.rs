//! Running the binary, and what an error must look like.

use foretoken::checkpoint::ModelDir;
use foretoken::data::{Tokenizer, corpus};
use foretoken::model::{HeadKind, Model, Preset};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Positions of the small model.
pub const POSITIONS: usize = 48;

/// A folder of its own, with a text and a small model in it.
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// Holds `text.txt` and nothing else.
    pub fn with_text() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("text.txt"), corpus::stories(3, 2000)).expect("a text");
        Self(folder)
    }

    /// Holds `text.txt` and the directory `model`, of 3 heads and [`POSITIONS`] positions.
    pub fn with_model() -> Self {
        let folder = Self::with_text();
        let mut config = Preset::Tiny.config(257, HeadKind::Recursive, 3);
        (config.hidden_size, config.intermediate_size) = (16, 32);
        (config.num_hidden_layers, config.head_dim) = (2, 8);
        (config.num_attention_heads, config.num_key_value_heads) = (2, 1);
        (config.max_position_embeddings, config.training_context) = (POSITIONS, 16);
        config.set_head_width(8);
        let model = Model::new(config, 5).expect("valid sizes");
        let path = folder.path("model");
        ModelDir::create(&path, &model, &Tokenizer::bytes(), false).expect("a new directory");
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The binary with these arguments, started in the folder. Words are split at spaces.
    pub fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_foretoken"));
        command.current_dir(self.0.path()).stdin(Stdio::null());
        command.args(words.split_whitespace());
        command
    }

    /// Runs it and expects success without a panic. Returns its standard output.
    pub fn succeeds(&self, words: &str) -> String {
        let output = self.command(words).output().expect("the binary");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words}: {errors}");
        assert!(!errors.contains("panicked"), "{words}: {errors}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs it and expects an error that names all of `names`, and a folder left as it was.
    pub fn refuses(&self, words: &str, code: i32, names: &[&str]) {
        self.command_refuses(self.command(words), code, names);
    }

    /// The same for a command with arguments or an environment of its own.
    pub fn command_refuses(&self, mut command: Command, code: i32, names: &[&str]) {
        let before = self.contents();
        let output = command.output().expect("the binary");
        assert_refused(&format!("{command:?}"), &output, code, names);
        let after = self.contents();
        let paths = |contents: &Contents| contents.keys().cloned().collect::<Vec<_>>();
        assert_eq!(paths(&before), paths(&after), "{command:?} left files");
        assert!(before == after, "{command:?} changed a file");
    }

    /// Every path in the folder, including hidden ones, with the bytes of files.
    pub fn contents(&self) -> Contents {
        let mut contents = Contents::new();
        let mut open = vec![self.0.path().to_owned()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(&dir).expect("a directory") {
                let path = entry.expect("an entry").path();
                let bytes = (!path.is_dir()).then(|| fs::read(&path).expect("a file"));
                if bytes.is_none() {
                    open.push(path.clone());
                }
                contents.insert(path, bytes);
            }
        }
        contents
    }
}

/// Paths, and the bytes of those that are files.
pub type Contents = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// One sentence on standard error after `error: `, which names all of `names`; nothing on standard output.
///
/// Errors from clap may be followed by its own hints.
pub fn assert_refused(what: &str, output: &Output, code: i32, names: &[&str]) {
    let errors = String::from_utf8_lossy(&output.stderr);
    let context = format!("{what}\nstatus {}\nstderr: {errors}", output.status);
    assert!(!errors.contains("panicked"), "{context}");
    assert_eq!(output.status.code(), Some(code), "{context}");
    assert!(output.stdout.is_empty(), "{context}");
    let sentences = errors.lines().filter(|line| line.starts_with("error: "));
    assert_eq!(sentences.count(), 1, "{context}");
    assert!(errors.starts_with("error: "), "{context}");
    let hints = code == 2 && errors.contains("For more information, try '--help'.");
    assert!(hints || errors.lines().count() == 1, "{context}");
    for name in names {
        assert!(errors.contains(name), "expected `{name}` in: {context}");
    }
}

/// The JSON objects of a text, one per line.
pub fn objects(text: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    let objects: Vec<Value> = text.lines().map(parse).collect();
    assert!(objects.iter().all(Value::is_object), "{text}");
    // Only a head without targets has no figure. A number that is not finite would be null, too.
    let fields = objects.iter().filter_map(Value::as_object).flatten();
    let null = fields.filter(|(_, value)| value.is_null()).count();
    assert_eq!(null, 0, "a number that is not finite: {text}");
    objects
}

/// Asserts that an object has all of these keys.
pub fn assert_keys(object: &Value, keys: &str) {
    for key in keys.split_whitespace() {
        assert!(object.get(key).is_some(), "no `{key}` in {object}");
    }
}

/// Changes a JSON file.
pub fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON");
    edit(&mut value);
    fs::write(path, value.to_string()).expect("a file that can be written");
}

/// A command with one more argument, which may hold spaces or be empty.
pub fn with_arg(mut command: Command, arg: impl AsRef<OsStr>) -> Command {
    command.arg(arg);
    command
}
