//! What goes wrong gets one clear sentence on stderr, exit code 1 or 2, and leaves nothing half-done.

use std::fs;
use std::path::Path;

use dunlin_tests::{Launch, Mesh, Output, Running, dunlin, guest, wait_for};

use crate::counting::{Ledger, number, pipeline, publish};

const PLAIN: &str = "name = \"wrong\"\n[source.events]\nkey = \"k\"\n";

/// One sentence with all of these words in it, and nothing on stdout.
#[track_caller]
fn check(output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.code, Some(code), "{output:?}");
    assert_eq!(output.stderr.trim_end().lines().count(), 1, "not one line: {output:?}");
    assert_eq!(output.stdout, "", "{output:?}");
    for word in words {
        assert!(output.stderr.contains(word), "no '{word}' in: {output:?}");
    }
    assert!(!output.stderr.contains("panicked"), "{output:?}");
}

#[test]
fn a_wrong_pipeline_file_is_named_by_place_and_leaves_nothing() {
    let mesh = Mesh::of(1);
    mesh.write("corrupt.wasm", "\0asm this is none");
    mesh.write("text.wasm", "no module at all");
    // Right at the beginning, and then a byte too few.
    let whole = fs::read(guest("clean")).unwrap();
    fs::write(mesh.file("cut.wasm"), &whole[..whole.len() - 1]).unwrap();
    let mut changed = whole;
    let middle = changed.len() / 2;
    changed[middle..middle + 64].fill(0xff);
    fs::write(mesh.file("changed.wasm"), &changed).unwrap();
    let learn = |learn: &str| format!("[stage.a]\nfrom = [\"events\"]\nkey = \"k\"\nlearn = {learn}\n");
    let stage = |rest: &str| format!("[stage.a]\nfrom = [\"events\"]\n{rest}\n");
    let cases: &[(&str, String, &[&str])] = &[
        ("key", stage("fliter = \"true\""), &[":6:", "fliter", "did you mean 'filter'"]),
        ("top", "[stag.a]\n".into(), &[":4:", "stag", "did you mean 'stage'"]),
        ("toml", "[stage.a\n".into(), &[":4:"]),
        (
            "unknown",
            "[stage.a]\nfrom = [\"event\"]\nfilter = \"true\"\n".into(),
            &[":5:", "'event'", "did you mean 'events'"],
        ),
        ("function", stage("filter = \"event.a.startWith('x')\""), &[":6:10:", "did you mean 'startsWith'"]),
        ("number", stage("filter = \"event.n + 1\""), &[":6:10:", "gives a number"]),
        ("constant", stage("filter = \"1 < 2\""), &[":6:10:", "always true"]),
        ("impossible", stage("map = { a = \"event.n\", b = \"event.n * 'x'\" }"), &[":6:", "'b'", "'*'"]),
        (
            "own",
            "[sink.s]\nfrom = [\"events\"]\nfile = { path = \"./identity\" }\n".into(),
            &["sink 's'", "the node's own"],
        ),
        (
            "model",
            learn("{ target = \"x\", after = \"1s\", models = [\"rsl\"] }"),
            &[":7:", "did you mean 'rls'"],
        ),
        (
            "cycle",
            "[stage.a]\nfrom = [\"b\"]\nfilter = \"true\"\n[stage.b]\nfrom = [\"a\"]\nfilter = \"true\"\n"
                .into(),
            &["wrong.toml:"],
        ),
        ("expression", stage("filter = \"event.n >\""), &[":6:", "expression"]),
        ("name", stage("filter = \"evnt.n > 1\""), &[":6:", "evnt"]),
        ("missing", stage("wasm = \"missing.wasm\""), &[":6:", "missing.wasm", "cannot be read"]),
        ("text", stage("wasm = \"text.wasm\""), &[":6:", "text.wasm"]),
        (
            "corrupt",
            stage("wasm = \"corrupt.wasm\""),
            &[":6:", "corrupt.wasm was refused", "no WebAssembly component"],
        ),
        ("cut", stage("wasm = \"cut.wasm\""), &[":6:", "cut.wasm was refused", "does not compile"]),
        (
            "changed",
            stage("wasm = \"changed.wasm\""),
            &[":6:", "changed.wasm was refused", "does not compile"],
        ),
        ("copies", "copies = 3\n".into(), &["copies"]),
        ("durability", "".into(), &["durability", "did you mean 'disk'"]),
        ("learn", learn("{ taget = \"x\", after = \"1s\" }"), &[":7:", "did you mean 'target'"]),
        (
            "label",
            stage(
                "filter = \"event.v > 1\"\n[sink.s]\nfrom=[\"a\"]\nstdout={}\n[placement.s]\nlabels = { n = \"9\" }",
            ),
            &["n = 9"],
        ),
    ];
    for (what, rest, words) in cases {
        let text = match *what {
            "copies" => format!("{rest}{PLAIN}"),
            "durability" => format!("durability = \"dsk\"\n{PLAIN}"),
            _ => format!("{PLAIN}{rest}"),
        };
        let file = mesh.write("wrong.toml", &text);
        let output = mesh[0].cli(&["deploy", &file]);
        eprintln!("{what}: {}", output.stderr.trim());
        check(&output, 1, words);
        assert_eq!(mesh[0].cli(&["pipelines", "--json"]).ok().stdout, "", "{what}: something is deployed");
        // The same over libp2p, in the same words.
        let (address, token) = (mesh[0].listen[0].clone(), mesh[0].token());
        let over_mesh = dunlin(&["--node", &address, "--token", &token, "deploy", &file]);
        assert_eq!(over_mesh.stderr, output.stderr, "{what}");
    }
    let kept = fs::read_dir(mesh[0].data().join("modules")).unwrap().count();
    assert_eq!(kept, 0, "a module that cannot run is not kept");
    check(&mesh[0].cli(&["deploy", "/no/such/pipeline.toml"]), 1, &["/no/such/pipeline.toml"]);
}

#[test]
fn wrong_lines_are_named_by_number_and_the_rest_is_taken() {
    let mesh = Mesh::of(1);
    mesh.deploy(&pipeline("lines", ""));
    let mut ledger = Ledger::over(3);
    let mut lines: Vec<String> = ledger.write(0, 20).lines().map(str::to_string).collect();
    lines.insert(2, "{\"flight\": broken".to_string());
    lines.insert(5, "[1, 2]".to_string());
    lines.insert(9, "{\"price\":1,\"n\":1}".to_string());
    let file = mesh.write("lines.jsonl", &(lines.join("\n") + "\n"));
    let output = mesh[0].cli(&["publish", "--json", "lines/events", &file]);
    assert_eq!(output.code, Some(1), "{output:?}");
    let taken = output.json();
    assert_eq!((number(&taken["acknowledged"]), number(&taken["rejected"])), (20, 3));
    let said: Vec<&str> = output.stderr.lines().collect();
    assert_eq!(said.len(), 3, "{output:?}");
    for (line, start) in said.iter().zip(["line 3:", "line 6:", "line 10:"]) {
        assert!(line.starts_with(start), "{output:?}");
    }
    assert!(said[2].contains("flight"), "{output:?}");
    ledger.check_counts(&mesh[0], "lines");
}

#[test]
fn what_is_not_there_and_what_is_wrong_usage_get_a_sentence() {
    let mesh = Mesh::of(1);
    mesh.deploy(&pipeline("here", ""));
    let file = mesh.write("one.jsonl", "{\"flight\":\"a\"}\n");
    let cases: &[(&[&str], &[&str])] = &[
        (&["publish", "nowhere/events", &file], &["no pipeline 'nowhere'"]),
        (&["publish", "here/event", &file], &["no source 'event'", "events"]),
        (&["publish", "here/event", "/dev/null"], &["no source 'event'", "events"]),
        (&["publish", "here/events", "/no/such/file"], &["/no/such/file"]),
        (&["publish", "here/events", "/tmp"], &["/tmp is a directory", "a file of JSON lines"]),
        (&["tail", "here/nothing"], &["nothing"]),
        (&["tail", "nowhere/seen"], &["nowhere"]),
        (&["show", "nowhere"], &["no pipeline 'nowhere'"]),
        (&["remove", "nowhere"], &["no pipeline 'nowhere'"]),
        (&["state", "here/nothing"], &["nothing"]),
        (&["state", "here/seen", "nokey"], &["keeps nothing"]),
        (&["dead-letters", "nowhere"], &["nowhere"]),
        (&["nodes", "remove", "x"], &["names no node of this mesh", "dunlin nodes"]),
        (&["bench", "failover"], &["not there yet"]),
    ];
    for (words, expected) in cases {
        check(&mesh[0].cli(words), 1, expected);
    }
    let usage: &[&[&str]] = &[
        &["no-such-command"],
        &["publish"],
        &["publish", "nowhere"],
        &["tail", "here/seen", "--from", "yesterday"],
        &["run", "--http", "nowhere"],
        &["run", "--listen", "nowhere"],
        &["run", "--log", "loud"],
        &["token", "--expires", "long"],
        &["dead-letters", "here", "show"],
        &["nodes", "--token", "x"],
    ];
    for words in usage {
        let output = mesh[0].cli(words);
        assert_eq!(output.code, Some(2), "{output:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{output:?}");
    }
    let nobody = mesh.file("nobody").display().to_string();
    check(&dunlin(&["--data", &nobody, "status"]), 1, &["nobody"]);
}

/// `dunlin run` that must not come up.
#[track_caller]
fn run_fails(data: &Path, more: &[&str], words: &[&str]) {
    let data = data.display().to_string();
    let mut all = vec!["run", "--data", &data, "--log", "error", "--listen", "/ip4/127.0.0.1/tcp/0"];
    all.extend(more);
    check(&Running::start(&all, b"").wait(10), 1, words);
}

#[test]
fn a_node_that_cannot_start_says_why() {
    let folder = tempfile::TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let any = ["--http", "127.0.0.1:0"];
    let mut node = Launch::at(&at("a")).start();

    run_fails(&at("a"), &any, &["in use by another running node"]);
    run_fails(&at("port"), &["--http", &node.http], &[&node.http, "--http"]);
    let listen = node.listen[0].split("/p2p/").next().unwrap().to_string();
    run_fails(&at("listen"), &["--http", "127.0.0.1:0", "--listen", &listen], &[]);
    run_fails(&at("open"), &["--http", "0.0.0.0:0"], &["TLS"]);
    for name in ["port", "listen", "open"] {
        assert!(!at(name).exists(), "{name}: a start that came to nothing leaves no folder");
    }
    run_fails(&at("config"), &["--config", "/no/such/file"], &["/no/such/file"]);

    // Tokens: each ends it within the ten seconds that `run_fails` waits.
    let token = node.token();
    let join = |token: &str| ["--http", "127.0.0.1:0", "--join", token].map(str::to_string);
    let refused = |name: &str, token: &str, words: &[&str]| {
        let arguments = join(token);
        run_fails(&at(name), &arguments.each_ref().map(String::as_str), words);
        assert!(!at(name).exists(), "it is a member of nothing, and nothing is left of it");
    };
    refused("malformed", "nonsense", &["token"]);
    refused("cut", &token[..token.len() - 3], &["token"]);
    let short = node.cli(&["token", "--expires", "1s"]).ok().stdout.trim().to_string();
    wait_for("the token expires", 20, || {
        let seconds = std::time::SystemTime::now()
            .duration_since(fs::metadata(node.data().join("http")).unwrap().modified().unwrap());
        (seconds.unwrap().as_secs() >= 3).then_some(())
    });
    refused("expired", &short, &["expired"]);
    // A folder in which a start failed can still join.
    let token = node.token();
    run_fails(&at("late"), &["--http", &node.http, "--join", &token], &[&node.http]);
    let mut late = Launch::at(&at("late")).join(&token).start();
    late.stop();

    node.stop();
    fs::write(at("a").join("format"), "dunlin data 999\n").unwrap();
    run_fails(&at("a"), &any, &["format 999", "newer version"]);
    fs::create_dir_all(at("foreign").join("logs")).unwrap();
    run_fails(&at("foreign"), &any, &["foreign"]);
    fs::write(at("file"), "").unwrap();
    run_fails(&at("file"), &any, &["data folder", "file"]);
    run_fails(Path::new("/proc/dunlin"), &any, &["data folder", "/proc/dunlin"]);
}

#[test]
fn an_unreadable_data_folder_is_refused() {
    let folder = tempfile::TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let any = ["--http", "127.0.0.1:0"];
    // What nobody can read, root neither: files where folders should be, and the other way round.
    let mut node = Launch::at(&at("whole")).start();
    node.stop();
    let wrong = |name: &str, part: &str, as_folder: bool| {
        copy_folder(&at("whole"), &at(name));
        let path = at(name).join(part);
        let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        if as_folder {
            fs::create_dir(&path).unwrap()
        } else {
            fs::write(&path, "x").unwrap()
        };
        run_fails(&at(name), &any, &[&path.display().to_string()]);
        assert!(path.exists(), "it is left as it was");
    };
    wrong("identity", "identity", true);
    wrong("mesh", "mesh", true);
    wrong("format", "format", true);
    wrong("logs", "logs", false);
    wrong("modules", "modules", false);
    fs::create_dir(at("loop")).unwrap();
    std::os::unix::fs::symlink(at("loop/b"), at("loop/a")).unwrap();
    std::os::unix::fs::symlink(at("loop/a"), at("loop/b")).unwrap();
    run_fails(&at("loop/a"), &any, &["data folder", "loop/a"]);

    let closed = at("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    if fs::read_dir(&closed).is_ok() {
        eprintln!("not checked: permissions, because this user (root?) reads folders whatever theirs are");
        return;
    }
    run_fails(&closed, &any, &["data folder", "permissions"]);
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_module_whose_bytes_changed_on_disk_is_fetched_again_and_never_run() {
    let mut mesh = Mesh::of(2);
    mesh.deploy(&pipeline("sound", ""));
    let mut ledger = Ledger::over(9);
    let lines = ledger.write(0, 500);
    publish(&mesh, 0, "sound/events", "p0", &lines);
    ledger.check_counts(&mesh[0], "sound");

    mesh[1].stop();
    let modules: Vec<_> =
        fs::read_dir(mesh[1].data().join("modules")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(modules.len(), 2);
    for module in &modules {
        let mut bytes = fs::read(module).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(module, bytes).unwrap();
    }
    // What was compiled before would hide it.
    let _ = fs::remove_dir_all(mesh[1].data().join("cache"));
    mesh[1].start();
    let lines = ledger.write(1, 2000);
    publish(&mesh, 1, "sound/events", "p1", &lines);
    ledger.check_counts(&mesh[0], "sound");
    ledger.check_order(&mesh[1], "sound");
    for module in &modules {
        let whole = mesh[0].data().join("modules").join(module.file_name().unwrap());
        assert_eq!(fs::read(module).unwrap(), fs::read(whole).unwrap(), "it is whole again");
    }
    assert!(guest("count").exists());
}
