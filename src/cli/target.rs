//! What a command writes. It is refused if an input of the same command would be lost, and `--force` replaces only what
//! this program itself wrote.

use super::failure::{Failure, Result};
use super::output::{message, quoted};
use crate::Error;
use crate::checkpoint::ModelDir;
use crate::files::refuse_overlap;
use std::path::{Path, PathBuf};

/// The files and directories that a command reads, each with the flag that names it.
#[derive(Debug, Default)]
pub struct Inputs(Vec<(String, PathBuf)>);

impl Inputs {
    /// Files that `flag` names.
    pub fn files<'a>(mut self, flag: &str, paths: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        let named = |path: &PathBuf| (format!("{flag} {}", quoted(path)), path.clone());
        self.0.extend(paths.into_iter().map(named));
        self
    }

    /// The directory of a model, with its files.
    pub fn model(mut self, name: &str, dir: Option<&Path>) -> Self {
        if let Some(dir) = dir {
            let name = format!("{name} {}", quoted(dir)).trim_start().to_owned();
            let files = ModelDir::files(dir).map(|file| (format!("a file of {name}"), file));
            self.0.push((name, dir.to_owned()));
            self.0.extend(files);
        }
        self
    }

    /// Refuses an output that is, contains or replaces one of them, whether or not replacing is allowed.
    fn refuse(&self, out: &Path) -> crate::Result<()> {
        let mut inputs = self.0.iter();
        inputs.try_for_each(|(name, path)| refuse_overlap(out, path, name))
    }
}

/// A kind of file that this program writes, and knows again.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// Whether this program wrote a file.
    pub wrote: fn(&Path) -> bool,
}

/// A file or directory that a command is to write.
#[derive(Debug)]
pub struct Target<'a> {
    path: &'a Path,
    /// What is there already, in words.
    old: Option<String>,
}

impl<'a> Target<'a> {
    /// A file. One that exists is refused unless `force` is set and this program wrote it.
    ///
    /// # Errors
    /// Returns [`Error::Exists`] or [`Failure::Usage`].
    pub fn file(path: &'a Path, kind: Kind, force: bool, inputs: &Inputs) -> Result<Self> {
        inputs.refuse(path)?;
        let Ok(found) = path.symlink_metadata() else {
            return Ok(Self { path, old: None });
        };
        if !force {
            return Err(Failure::Usage(format!(
                "{} exists: choose another file, or replace it with --force",
                path.display()
            )));
        }
        let name = kind.name;
        let why = if found.is_symlink() {
            "it is a symbolic link; name the file that it points to".to_owned()
        } else if !(kind.wrote)(path) {
            format!("expected a {name} that this program wrote, found something else")
        } else {
            let old = Some(format!("a {name} of {} bytes", found.len()));
            return Ok(Self { path, old });
        };
        let (path, kept) = (path.to_owned(), Some(why));
        Err(Error::Exists { path, kept }.into())
    }

    /// A model's directory. [`ModelDir::create`] and `Run::create` refuse to replace what is not ours.
    ///
    /// # Errors
    /// Returns [`Error::Exists`] if an input would be lost.
    pub fn dir(path: &'a Path, inputs: &Inputs) -> Result<Self> {
        inputs.refuse(path)?;
        let mut files = Vec::new();
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            files.push(entry.file_name().to_string_lossy().into_owned());
        }
        files.sort();
        let old = (!files.is_empty()).then(|| files.join(", "));
        Ok(Self { path, old })
    }

    /// Says what was replaced, once it was.
    pub fn written(self) {
        if let Some(old) = self.old {
            message(&format!("replaced {}: {old}", self.path.display()));
        }
    }
}
