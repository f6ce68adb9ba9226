use super::super::lock::lock;
use super::super::names::LOCK;
use super::*;
use tempfile::tempdir;

const CONFIGURED: Contents = Contents::Bytes(b"{\"foretoken_arithmetic\": 1}");
const M: &str = "model.safetensors";
const OLD: &str = "metrics.jsonl";
const NEW: &[(&str, Contents)] = &[("config.json", CONFIGURED), (M, Contents::Bytes(b"new"))];

fn create_dir(dir: &Path, files: &[(&str, Contents)], force: bool) -> Result<()> {
    super::create_dir(dir, files, force, |_| Ok(()))
}

/// All that lies in a directory, hidden names too, in order.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

/// The path of a directory that exists and was not replaced, and the reason if replacing it was requested.
fn kept(result: Result<()>) -> (PathBuf, Option<String>) {
    match result.unwrap_err() {
        Error::Exists { path, kept } => (path, kept),
        other => panic!("expected that the directory exists, found {other}"),
    }
}

/// A directory of ours at `run`, older than `NEW`.
fn with_old() -> (tempfile::TempDir, PathBuf) {
    let root = tempdir().unwrap();
    let run = root.path().join("run");
    create_dir(
        &run,
        &[("config.json", CONFIGURED), (OLD, Contents::Bytes(b"old"))],
        false,
    )
    .unwrap();
    (root, run)
}

#[test]
fn a_directory_appears_with_missing_parents_and_a_trailing_slash() {
    let root = tempdir().unwrap();
    let given = format!("{}/a/b/run/", root.path().display());
    create_dir(Path::new(&given), NEW, false).unwrap();
    assert_eq!(names(&root.path().join("a/b")), ["run"]);
    assert_eq!(names(&root.path().join("a/b/run")), ["config.json", M]);
    assert_eq!(
        fs::read(root.path().join("a/b/run/model.safetensors")).unwrap(),
        b"new"
    );
    assert!(create_dir(&root.path().join("a/b/run/model.safetensors/x"), NEW, false).is_err());
}

#[test]
fn paths_end_in_a_name() {
    let root = tempdir().unwrap();
    for (given, expected) in [
        ("run", "run"),
        ("run/", "run"),
        ("run/.", "run"),
        ("a/run//", "a/run"),
    ] {
        assert_eq!(resolve(Path::new(given)).unwrap(), Path::new(expected));
    }
    assert_eq!(
        split(Path::new("run")),
        Some((".".into(), OsStr::new("run")))
    );
    for nameless in ["", "/"] {
        let message = create_dir(Path::new(nameless), NEW, true).unwrap_err();
        assert!(message.to_string().contains("with a name"), "{message}");
    }
    let here = fs::canonicalize(".").unwrap();
    assert_eq!(kept(create_dir(Path::new("."), NEW, false)), (here, None));
    // `run/..` is the directory above, which exists.
    fs::create_dir(root.path().join("run")).unwrap();
    let above = kept(create_dir(&root.path().join("run").join(".."), NEW, false));
    assert_eq!(above, (fs::canonicalize(root.path()).unwrap(), None));
    assert_eq!(names(root.path()), ["run"]);
}

#[cfg(unix)]
#[test]
fn a_relative_path_starts_at_the_working_directory() {
    let root = tempdir().unwrap();
    let here = fs::canonicalize(".").unwrap();
    let up: PathBuf = here.iter().skip(1).map(|_| "..").collect();
    let real = fs::canonicalize(root.path()).unwrap();
    let relative = up.join(real.strip_prefix("/").unwrap()).join("run");
    create_dir(&relative, NEW, false).unwrap();
    create_dir(&relative, NEW, true).unwrap();
    assert_eq!(names(root.path()), ["run"]);
    assert_eq!(names(&root.path().join("run")), ["config.json", M]);
}

#[test]
fn an_existing_directory_is_refused_by_name() {
    let (root, run) = with_old();
    assert_eq!(kept(create_dir(&run, NEW, false)), (run.clone(), None));
    assert_eq!(names(&run), ["config.json", OLD]);
    assert_eq!(names(root.path()), ["run"]);
}

#[test]
fn force_replaces_ours_and_the_empty() {
    let (root, run) = with_old();
    fs::create_dir(root.path().join("empty")).unwrap();
    for dir in [run, root.path().join("empty")] {
        create_dir(&dir, NEW, true).unwrap();
        assert_eq!(names(&dir), ["config.json", M]);
    }
    create_dir(&root.path().join("fresh"), NEW, true).unwrap();
    assert_eq!(names(root.path()), ["empty", "fresh", "run"]);
}

#[test]
fn force_never_deletes_what_may_be_the_users() {
    let (root, run) = with_old();
    let sub = |name: &str| root.path().join(name);
    fs::write(sub("file"), b"kept").unwrap();
    fs::create_dir_all(sub("home")).unwrap();
    fs::write(sub("home/letter"), b"kept").unwrap();
    fs::create_dir_all(sub("project/src")).unwrap();
    fs::write(sub("project/config.json"), b"kept").unwrap();
    fs::create_dir_all(sub("odd/config.json")).unwrap();
    let before = names(root.path());
    for name in [
        "file", "home", "home/", "project", "odd", "home/..", "file/",
    ] {
        let (_, reason) = kept(create_dir(&sub(name), NEW, true));
        assert!(reason.is_some(), "{name}");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&run, sub("link")).unwrap();
        let reason = |name| kept(create_dir(&sub(name), NEW, true)).1.unwrap();
        assert!(reason("link").contains("symbolic link"));
        fs::remove_file(sub("link")).unwrap();
        fs::write(sub("linked.json"), b"{}").unwrap();
        fs::remove_dir(sub("odd/config.json")).unwrap();
        std::os::unix::fs::symlink(sub("linked.json"), sub("odd/config.json")).unwrap();
        assert!(reason("odd").contains("`config.json`, which is no file of a model"));
        fs::remove_file(sub("linked.json")).unwrap();
    }
    // A model of others, with the same names; one of ours with a file more; one without its config.
    for (dir, file, content, expected) in [
        (
            "theirs",
            "config.json",
            "{\"hidden_size\": 8}",
            "no config.json that this program wrote",
        ),
        (
            "damaged",
            "config.json",
            "{\"foretoken_arithmetic\": 1",
            "no config.json that this",
        ),
        (
            "bare",
            M,
            "weights",
            "no config.json that this program wrote",
        ),
        (
            "more",
            "book.txt",
            "kept",
            "`book.txt`, which is no file of a model",
        ),
    ] {
        let dir = sub(dir);
        fs::create_dir(&dir).unwrap();
        if file == "book.txt" {
            fs::write(dir.join("config.json"), "{\"foretoken_arithmetic\": 1}").unwrap();
        }
        fs::write(dir.join(file), content).unwrap();
        let reason = kept(create_dir(&dir, NEW, true)).1.unwrap();
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(fs::read_to_string(dir.join(file)).unwrap(), content);
        fs::remove_dir_all(&dir).unwrap();
    }
    let found = fs::symlink_metadata(&run).unwrap();
    let (_, reason) = kept(check_replaceable(&run, &found, &run));
    assert!(reason.unwrap().contains("working directory"));
    assert_eq!(names(root.path()), before);
    assert_eq!(fs::read(sub("home/letter")).unwrap(), b"kept");
    assert_eq!(names(&sub("project")), ["config.json", "src"]);
    assert_eq!(names(&run), ["config.json", OLD]);
}

#[test]
fn a_creation_that_fails_half_way_leaves_everything_as_it_was() {
    let (root, run) = with_old();
    let long = "x".repeat(300);
    for bad in [&long, "a/b", "../x", "/etc/x", "..", ".", "", M] {
        // The first file is written before the bad one fails; `M` is bad as it comes twice.
        let files = &[NEW, &[(bad, Contents::Bytes(b"bad"))]].concat();
        assert!(create_dir(&run, files, true).is_err(), "{bad}");
        assert!(
            create_dir(&root.path().join("fresh"), files, false).is_err(),
            "{bad}"
        );
        assert_eq!(names(root.path()), ["run"]);
        assert_eq!(names(&run), ["config.json", OLD]);
    }
}

#[test]
fn a_failed_swap_puts_the_old_directory_back() {
    let (root, run) = with_old();
    let new = || {
        let new = Temporary::dir(root.path(), OsStr::new("new")).unwrap();
        fs::remove_dir(new.path()).unwrap();
        new
    };
    let aside = root.path().join("aside");
    let message = swap(new(), &run, &aside, None).unwrap_err().to_string();
    assert!(message.contains("replace"), "{message}");
    assert_eq!(names(&run), ["config.json", OLD]);
    assert_eq!(names(root.path()), ["run"]);
}

#[test]
fn a_directory_that_becomes_a_run_meanwhile_is_put_back() {
    let (root, run) = with_old();
    let mut theirs = None;
    let refused = super::create_dir(&run, NEW, true, |_| {
        theirs = Some(lock(&run)?);
        Ok(())
    });
    let message = refused.unwrap_err().to_string();
    assert!(message.starts_with(run.to_str().unwrap()) && message.contains("training"));
    assert_eq!(names(root.path()), ["run"]);
    assert_eq!(names(&run), ["config.json", OLD, LOCK]);
    drop(theirs);
    create_dir(&run, NEW, true).unwrap();
    assert_eq!(names(&run), ["config.json", M]);
}

/// It is refused where it stands: moving it aside, which cannot succeed here, is not tried.
#[test]
fn a_directory_that_became_a_run_is_not_moved() {
    let (root, run) = with_old();
    let new = || Temporary::dir(root.path(), OsStr::new("new")).unwrap();
    let aside = root.path().join("missing/aside");
    let held = lock(&run).unwrap();
    let busy = swap(new(), &run, &aside, None).unwrap_err();
    assert!(matches!(busy, Error::Busy { path } if path == run));
    drop(held);
    let error = swap(new(), &run, &aside, None).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert_eq!(names(&run), ["config.json", OLD, LOCK]);
}

#[test]
fn what_a_killed_replacement_left_aside_is_not_deleted() {
    let (root, run) = with_old();
    let aside = root.path().join(beside(OsStr::new("run"), ".old.tmp"));
    fs::create_dir(&aside).unwrap();
    let message = create_dir(&run, NEW, true).unwrap_err().to_string();
    assert!(
        message.contains(".old.tmp") && message.contains("only copy"),
        "{message}"
    );
    assert!(aside.exists());
    assert_eq!(names(&run), ["config.json", OLD]);
    assert_eq!(names(root.path()).len(), 2);
}
