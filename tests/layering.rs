//! Keeps the table of imports: which module of `src/` may name which, and which crates and
//! keywords have one home. It reads the sources as text, so a path counts wherever it stands.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module with the modules that it may name. A name that goes on after `::` admits only what
/// begins with it. `stdx` and `constants` are below everything and stand in no list.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("stdx", &[]),
    ("constants", &[]),
    ("io", &[]),
    ("wire", &[]),
    ("grid", &["io"]),
    ("lsm", &["grid", "io"]),
    ("ledger", &["lsm", "grid", "io", "wire"]),
    // Consensus does no I/O: of `io` it knows what an incoming frame looks like.
    ("vsr", &["wire", "io::ConnectionId", "io::Incoming"]),
    ("client", &["wire"]),
    ("driver", &["vsr", "ledger", "lsm", "grid", "io", "wire"]),
    ("server", &["driver", "vsr", "io", "wire", "client"]),
    (
        "cli",
        &[
            "server", "driver", "vsr", "ledger", "lsm", "grid", "io", "wire", "client",
        ],
    ),
];

const BELOW_EVERYTHING: &[&str] = &["stdx", "constants"];

/// What may stand only in files whose path begins with one of these.
const HOMES: &[(&str, &[&str])] = &[
    ("glommio", &["src/server/"]),
    ("io_uring", &["src/server/"]),
    ("madsim", &["vopr/"]),
    ("unsafe", &["src/server/", "src/stdx/sectors.rs"]),
];

#[test]
fn every_module_names_only_what_lies_below_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for file in sources(&root.join("src")) {
        let relative = file
            .strip_prefix(root.join("src"))
            .expect("it is below src");
        let modules = module_path(relative);
        let Some(module) = modules.first() else {
            continue; // lib.rs and main.rs are the map and the entry.
        };
        let Some((_, allowed)) = MAY_NAME.iter().find(|(name, _)| name == module) else {
            panic!("src/{module} is not in the table of imports");
        };
        let _new = seen.insert(module.clone());
        let text = without_comments(&fs::read_to_string(&file).expect("a source is UTF-8"));
        for path in crate_paths(&text, modules.len()) {
            let first = path.split("::").next().expect("a path is not empty");
            let below = first == module || BELOW_EVERYTHING.contains(&first);
            let listed = allowed
                .iter()
                .any(|name| path == *name || path.starts_with(&format!("{name}::")));
            if !below && !listed && MAY_NAME.iter().any(|(name, _)| *name == first) {
                wrong.push(format!("src/{} names crate::{path}", relative.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports against the layout:\n{}",
        wrong.join("\n")
    );
    let all: BTreeSet<String> = MAY_NAME.iter().map(|(name, _)| (*name).into()).collect();
    assert_eq!(
        seen, all,
        "the table lists modules that do not exist, or the reverse"
    );
}

#[test]
fn crates_and_keywords_stay_at_home() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    let mut found = BTreeSet::new();
    for folder in ["src", "storage-format/src", "vopr"] {
        for file in sources(&root.join(folder)) {
            let relative = file.strip_prefix(root).expect("it is below the root");
            let relative = relative.to_str().expect("the name is UTF-8");
            let text = without_comments(&fs::read_to_string(&file).expect("a source is UTF-8"));
            for (word, homes) in HOMES {
                // `cfg(madsim)` is a flag of the build, not the crate.
                let used = match *word {
                    "unsafe" => has_word(&text, "unsafe"),
                    name => has_word(&text, &format!("{name}::")),
                };
                if used && homes.iter().any(|home| relative.starts_with(home)) {
                    let _new = found.insert(*word);
                } else if used {
                    wrong.push(format!("{relative} uses {word}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "away from home:\n{}", wrong.join("\n"));
    assert!(found.contains("glommio") && found.contains("io_uring") && found.contains("unsafe"));
}

#[test]
fn the_core_builds_without_the_host() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("the manifest is there");
    for name in ["glommio", "io-uring"] {
        let line = manifest
            .lines()
            .find(|line| line.starts_with(&format!("{name} =")));
        assert!(
            line.is_some_and(|line| line.contains("optional = true")),
            "{name}"
        );
    }
    assert!(
        !manifest.lines().any(|line| line.starts_with("madsim")),
        "madsim belongs to vopr"
    );
    let simulator = fs::read_to_string(root.join("vopr/Cargo.toml")).expect("vopr is there");
    let line = simulator.lines().find(|line| line.starts_with("daftari ="));
    assert!(line.is_some_and(|line| line.contains("default-features = false")));
}

#[test]
fn paths_are_found_wherever_they_stand() {
    let text = without_comments(
        "use crate::{io::{Io, Storage as S}, wire}; // use crate::cli\n\
         pub(crate) use crate::vsr::Replica;\n\
         fn f() -> crate::grid::FreeSet { super::super::driver::run(\"crate::\") }",
    );
    let paths: Vec<String> = crate_paths(&text, 2).into_iter().collect();
    assert_eq!(
        paths,
        [
            "driver::run",
            "grid::FreeSet",
            "io::Io",
            "io::Storage",
            "vsr::Replica",
            "wire"
        ]
    );
    assert!(has_word("let x = unsafe { y }", "unsafe") && !has_word("unsafe_code", "unsafe"));
}

/// All Rust files below `folder`, build output left out.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("the entry can be read").path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(!files.is_empty());
    files.sort();
    files
}

/// `vsr/journal.rs` is `[vsr, journal]`, `vsr/mod.rs` is `[vsr]`, `lib.rs` is empty.
fn module_path(relative: &Path) -> Vec<String> {
    let mut path: Vec<String> = relative
        .with_extension("")
        .iter()
        .map(|part| part.to_str().expect("a module's name is UTF-8").into())
        .collect();
    if path
        .last()
        .is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str()))
    {
        let _last = path.pop();
    }
    path
}

fn without_comments(text: &str) -> String {
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    text.lines().map(code).collect::<Vec<_>>().join("\n")
}

/// Paths from the crate's root, without `crate::`. `depth` is that of the file's module, so that
/// enough `super::` lead to the root as well.
fn crate_paths(text: &str, depth: usize) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for prefix in ["crate::".to_owned(), "super::".repeat(depth)] {
        for (at, _) in text.match_indices(&prefix) {
            if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let tokens = tokens(&text[at + prefix.len()..]);
            let _end = use_tree(&tokens, 0, "", &mut paths);
        }
    }
    paths
}

/// The identifiers, `::`, braces and commas at the start of `text`; anything else ends them.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut chars = text.chars().peekable();
    let mut depth = 0;
    while let Some(c) = chars.next() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => {
                let mut word = String::from(c);
                while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    word.push(c);
                }
                tokens.push(word);
            }
            ':' if chars.next_if_eq(&':').is_some() => tokens.push("::".into()),
            '{' if tokens.last().is_none_or(|last| last == "::") => {
                depth += 1;
                tokens.push("{".into());
            }
            '}' if depth > 0 => {
                depth -= 1;
                tokens.push("}".into());
            }
            ',' if depth > 0 => tokens.push(",".into()),
            c if c.is_whitespace() && depth > 0 => {}
            _ => break,
        }
    }
    tokens
}

/// Reads one path or group from `at` on, adds the paths that it stands for, and gives its end.
fn use_tree(tokens: &[String], at: usize, prefix: &str, paths: &mut BTreeSet<String>) -> usize {
    let Some(token) = tokens.get(at) else {
        return at;
    };
    if token == "{" {
        let mut at = at + 1;
        while tokens.get(at).is_some_and(|token| token != "}") {
            at = use_tree(tokens, at, prefix, paths).max(at + 1);
            // The rest of `x as y`, and the comma.
            while tokens
                .get(at)
                .is_some_and(|token| token != "}" && token != ",")
            {
                at += 1;
            }
            if tokens.get(at).is_some_and(|token| token == ",") {
                at += 1;
            }
        }
        return at + 1;
    }
    let path = if prefix.is_empty() {
        token.clone()
    } else {
        format!("{prefix}::{token}")
    };
    if tokens.get(at + 1).is_some_and(|next| next == "::") && tokens.len() > at + 2 {
        return use_tree(tokens, at + 2, &path, paths);
    }
    let _new = paths.insert(path);
    at + 1
}

fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !part(before) && (word.ends_with(':') || !part(after))
    })
}
