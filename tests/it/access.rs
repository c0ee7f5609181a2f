//! Who is answered: with the bearer token, with a mesh token, and nobody else.

use dunlin_tests::{Mesh, Output, dunlin, request};

use crate::counting::{Ledger, pipeline, publish};

#[test]
fn http_answers_nobody_without_the_bearer_token() {
    let mesh = Mesh::of(1);
    mesh.deploy(&pipeline("closed", ""));
    let address = &mesh[0].http;
    let paths = [
        ("GET", "/v1/status"),
        ("GET", "/v1/nodes"),
        ("GET", "/metrics"),
        ("GET", "/v1/pipelines"),
        ("GET", "/v1/pipelines/closed"),
        ("PUT", "/v1/pipelines/closed"),
        ("DELETE", "/v1/pipelines/closed"),
        ("GET", "/v1/pipelines/closed/dead-letters"),
        ("POST", "/v1/pipelines/closed/dead-letters/replay"),
        ("POST", "/v1/pipelines/closed/dead-letters/drop"),
        ("GET", "/v1/pipelines/closed/history"),
        ("POST", "/v1/pipelines/closed/rollback"),
        ("PUT", "/v1/modules"),
        ("GET", "/v1/modules/00"),
        ("GET", "/v1/streams/closed/seen"),
        ("POST", "/v1/streams/closed/events"),
        ("GET", "/v1/state/closed/seen"),
        ("GET", "/v1/state/closed/seen/F1"),
        ("GET", "/openapi.json"),
        ("GET", "/"),
        ("GET", "/no/such/path"),
        ("PATCH", "/v1/status"),
    ];
    let wrong = "0".repeat(mesh[0].bearer.len());
    for (method, path) in paths {
        for bearer in [None, Some(wrong.as_str())] {
            let answer = request(method, address, path, bearer, &[], "{}");
            assert_eq!(answer.status, 401, "{method} {path} {bearer:?}: {answer:?}");
            assert_eq!(answer.content_type, "application/problem+json", "{method} {path}");
            let problem = answer.json();
            for field in ["type", "title", "detail"] {
                assert!(problem[field].is_string(), "{method} {path}: {problem}");
            }
        }
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(request("GET", address, path, None, &[], "").status, 200, "{path}");
    }
    let metrics = mesh[0].get("/metrics");
    assert_eq!(metrics.status, 200);
    assert!(metrics.body.contains("# TYPE"), "{}", metrics.body);
    assert!(mesh[0].get("/v1/pipelines").body.contains("closed"), "nothing was removed");
    // The file that holds it is its owner's alone.
    let mode =
        std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(mesh[0].data().join("bearer")).unwrap());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_multiaddr_without_a_valid_token_gets_nothing() {
    let mesh = Mesh::of(1);
    let stranger = Mesh::of(1);
    let address = mesh[0].listen[0].as_str();
    let other = stranger[0].token();
    let cut: String = mesh[0].token().chars().rev().skip(1).collect::<String>().chars().rev().collect();
    for token in [other.as_str(), cut.as_str(), "dunlin1nothing"] {
        for command in [&["nodes"][..], &["status"], &["pipelines"], &["remove", "x"]] {
            let mut words = vec!["--node", address, "--token", token];
            words.extend(command);
            let refused = dunlin(&words);
            assert_eq!(refused.code, Some(1), "{refused:?}");
            assert_eq!(refused.stdout, "", "{refused:?}");
            assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
        }
    }
    assert_eq!(mesh[0].status()["peers"], 0);
    // Nor does somebody who was let in make tokens of his own.
    let refused = dunlin(&["--node", address, "--token", &mesh[0].token(), "token"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{refused:?}");
    assert!(refused.stderr.contains("run 'dunlin token --data DIR' on that machine"), "{refused:?}");
}

#[test]
fn every_client_command_answers_the_same_over_libp2p() {
    let mesh = Mesh::of(2);
    let (address, token) = (mesh[1].listen[0].clone(), mesh[0].token());
    let over_mesh = |words: &[&str]| -> Output {
        let mut all = vec!["--node", &address, "--token", &token];
        all.extend(words);
        dunlin(&all).ok()
    };
    // Deployed and published over libp2p.
    let text = pipeline("doors", "");
    let file = mesh.write("doors.toml", &text);
    assert_eq!(over_mesh(&["deploy", "--json", &file]).json()["changed"], true);
    assert_eq!(
        over_mesh(&["deploy", "--json", &file]).json(),
        mesh[0].cli(&["deploy", "--json", &file]).ok().json()
    );
    let mut ledger = Ledger::over(5);
    let lines = mesh.write("doors.jsonl", &ledger.write(0, 4000));
    let taken = over_mesh(&["publish", "--json", "--producer", "p", "doors/events", &lines]).json();
    assert_eq!((&taken["acknowledged"], &taken["rejected"]), (&4000.into(), &0.into()));
    let lines = ledger.write(1, 1000);
    publish(&mesh, 0, "doors/events", "q", &lines);
    // One event that a stage cannot take: `n` is missing.
    let poison = mesh.write("poison.jsonl", "{\"flight\":\"F1\",\"price\":1}\n");
    over_mesh(&["publish", "doors/events", &poison]);
    ledger.check_counts(&mesh[0], "doors");
    ledger.check_order(&mesh[0], "doors");
    dunlin_tests::wait_for("the dead letter is there", 30, || {
        (mesh[1].get("/v1/pipelines/doors/dead-letters").body.matches("\"id\"").count() == 1).then_some(())
    });

    let letter = mesh[0].cli(&["dead-letters", "doors", "--json"]).ok().json()["id"].clone();
    let commands: &[&[&str]] = &[
        &["pipelines"],
        &["show", "doors"],
        &["tail", "doors/ordered"],
        &["tail", "doors/ordered", "--limit", "7"],
        &["state", "doors/seen"],
        &["state", "doors/seen", "F3"],
        &["dead-letters", "doors"],
        &["dead-letters", "doors", "show", letter.as_str().unwrap()],
    ];
    for command in commands {
        for json in [&[][..], &["--json"]] {
            let words = [command, json].concat();
            let (here, there) = (mesh[1].cli(&words).ok(), over_mesh(&words));
            // A tail is the union of several logs: which comes first is not promised.
            let sorted = |text: &str| {
                let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
                lines.sort();
                lines
            };
            if command[0] == "tail" {
                let ids = |output: &Output| {
                    let lines = output.lines();
                    let mut ids: Vec<String> = lines.iter().map(|line| line["id"].to_string()).collect();
                    ids.sort();
                    ids
                };
                assert_eq!(here.lines().len(), there.lines().len(), "{words:?}");
                if command.len() == 2 {
                    assert_eq!(ids(&here), ids(&there), "{words:?}");
                }
            } else {
                // Positions without events are still being committed: at rest both say the same.
                dunlin_tests::wait_for(&format!("both doors say the same of {words:?}"), 30, || {
                    let (here, there) = (mesh[1].cli(&words).ok(), over_mesh(&words));
                    (sorted(&here.stdout) == sorted(&there.stdout)).then_some(())
                });
            }
        }
    }
    // What changes by itself: the same fields, the same node.
    let fields = |output: Output| -> Vec<String> {
        output.json().as_object().unwrap().keys().map(String::clone).collect()
    };
    assert_eq!(over_mesh(&["status", "--json"]).json()["node"], mesh[1].id.as_str());
    assert_eq!(fields(over_mesh(&["status", "--json"])), fields(mesh[1].cli(&["status", "--json"]).ok()));
    let nodes = |output: Output| -> Vec<String> {
        output
            .lines()
            .iter()
            .map(|line| format!("{} {} {}", line["node"], line["state"], line["actors"]))
            .collect()
    };
    assert_eq!(nodes(over_mesh(&["nodes", "--json"])), nodes(mesh[1].cli(&["nodes", "--json"])));
    assert_eq!(over_mesh(&["nodes", "--json"]).lines().len(), 2, "a client is never a member");

    assert_eq!(over_mesh(&["remove", "doors"]).stdout, "removed doors\n");
    dunlin_tests::wait_for("the other node knows of the removal", 30, || {
        mesh[0].cli(&["pipelines", "--json"]).ok().stdout.is_empty().then_some(())
    });
}
