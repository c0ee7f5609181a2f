use super::*;

const EVENT: &str = r#"{"v": 4, "w": 2.5, "price": 100, "cents": 119.99, "flight": "LH1", "none": null,
    "tags": ["b", "a"], "legs": {"z": 1, "a": {"x": 1.5}, "m": 3}, "big": 18446744073709551615,
    "whole": 2.0, "ok": true, "9x y": 1}"#;

fn run(expression: &str) -> Result<String, String> {
    let compiled = Expression::compile(expression).map_err(|bad| bad.to_string())?;
    let mut json = String::new();
    compiled.write(&Payload::parse(EVENT.as_bytes()).unwrap(), &mut json)?;
    Ok(json)
}

#[track_caller]
fn gives(expression: &str, json: &str) {
    assert_eq!(run(expression).as_deref(), Ok(json), "{expression}");
    Expression::compile(expression).unwrap().check_value().unwrap();
}

#[track_caller]
fn fails(expression: &str, why: &str) {
    let error = run(expression).unwrap_err();
    assert!(error.contains(why), "{expression}: {error}");
}

#[test]
fn mixed_arithmetic_promotes_at_any_value() {
    gives("event.v % 2 == 0", "true");
    gives("event.w % 2 == 0", "false");
    gives("event.whole % 2 == 0", "true");
    gives("event.price * 0.9", "90.0");
    gives("event.price * 2", "200");
    gives("event.cents * 2", "239.98");
    gives("event.price < 120", "true");
    gives("event.cents < 120", "true");
    gives("event.price < 120.0", "true");
    gives("event.v / 3", "1");
    gives("event.v / 3.0", "1.3333333333333333");
    gives("2 - event.w", "-0.5");
    gives("-event.v + event.w", "-1.5");
    gives("event.v == 4.0 && event.whole == 2", "true");
    gives("event.big + 1", "1.8446744073709552e+19");
    gives("event.flight + \"!\"", "\"LH1!\"");
    gives("[1] + [2.5]", "[1,2.5]");
    gives("(event.v + 1) * (event.w - 1)", "7.5");
}

#[test]
fn what_cel_has_is_there() {
    gives("has(event.nothing)", "false");
    gives("has(event.v) && event.ok", "true");
    gives("event.none == null", "true");
    gives("event.v > 3 ? \"dear\" : \"cheap\"", "\"dear\"");
    gives("size(event.tags) + event.tags.size()", "4");
    gives(
        "event.flight.startsWith('LH') && event.flight.endsWith('1') && event.flight.contains('H')",
        "true",
    );
    gives("'a' in event.tags && 'z' in event.legs", "true");
    gives("event['9x y']", "1");
    gives("event.legs.a.x + int('3') + double('0.5') + double(1)", "6.0");
    gives("string(event.v) + string(1.5)", "\"41.5\"");
    gives("type(event.v) == int", "true");
    gives("event.tags.map(t, t + '!')", "[\"b!\",\"a!\"]");
    gives("event.tags.filter(t, t != 'a')", "[\"b\"]");
    gives("event.tags.exists(t, t == 'a') && event.tags.all(t, size(t) == 1)", "true");
    gives("[1, 2, 3].exists_one(x, x > event.w)", "true");
    gives("[[1, 2], [3]].map(x, x.map(y, y * 1.5))", "[[1.5,3.0],[4.5]]");
    gives("event.legs.map(k, k)", "[\"a\",\"m\",\"z\"]");
    gives("{'b': 1, 'a': event.v}", "{\"a\":4,\"b\":1}");
    gives("event.legs", "{\"a\":{\"x\":1.5},\"m\":3,\"z\":1}");
    gives("event.v > 3 || event.nothing", "true");
}

#[test]
fn run_time_errors_are_sentences() {
    fails("event.nothing > 1", "the expression `event.nothing > 1` failed: there is no field 'nothing'");
    fails("event.v / 0", "it divides by zero");
    fails("event.v % 0", "it takes a remainder by zero");
    fails("9223372036854775807 + event.v", "does not fit into a 64-bit integer");
    fails("event.flight * 2", "'*' cannot be applied to string and int");
    fails("event.flight < 2", "'<' cannot be applied to string and int");
    fails("event.legs + 1", "'+' cannot be applied to map and int");
    fails("event.tags[5]", "an index lies outside its list");
    fails("event.v / 0.0", "inf is not a number that JSON has");
    fails("type(event.v)", "JSON has no type");
    fails("int('x')", "int");
    let filter = Expression::compile("event.v").unwrap();
    let error = filter.test(&Payload::parse(EVENT.as_bytes()).unwrap()).unwrap_err();
    assert!(error.contains("gives a value of type int instead of true or false"), "{error}");
}

#[test]
fn the_walk_of_macros_is_bounded() {
    let list = format!("{{\"l\":[{}0]}}", "0,".repeat(299));
    let payload = Payload::parse(list.as_bytes()).unwrap();
    let mut json = String::new();
    let square = Expression::compile("event.l.all(x, event.l.all(y, y == x))").unwrap();
    let error = square.write(&payload, &mut json).unwrap_err();
    assert!(error.contains("walks more than 65536 items"), "{error}");
    let line = Expression::compile("size(event.l.map(x, x + 1))").unwrap();
    line.write(&payload, &mut json).unwrap();
    assert_eq!(json, "300");
}

#[test]
fn wrong_expressions_do_not_compile() {
    fails("evnt.price > 1", "there is no variable 'evnt'");
    fails("price > 1", "did you mean 'event.price'?");
    fails("event.price >", "`event.price >` is no expression: at character 14, it ends too early; write CEL");
    fails("(event.x", "at character 9, ')' is missing");
    fails("event.x > > 3", "at character 11, '>' does not fit");
    fails("event..x", "at character 7, '..' does not fit");
    fails("event.x # 3", "'#' is nothing that CEL knows");
    fails("", "is no expression");
    fails("event.price.matches('a')", "there is no function 'matches'");
    fails("event.flight.startWith('a')", "did you mean 'startsWith'?");
    fails("now()", "there is no function 'now'");
    fails("Foo{a: 1}", "messages are not there");
    fails("event.?a", "is no expression");
    fails("[1].map(x, [1].map(y, [1].map(z, z)))", "more than 2 macros");
    fails("[1].map(x, x) == [x]", "there is no variable 'x'");
    fails("event.v = 3", "is no expression");
    fails(&"(".repeat(17), "nested more than 16 deep");
}

#[test]
fn the_deepest_that_passes_fits_a_small_stack() {
    let deep = [
        format!("{}event.v{}", "(".repeat(16), ")".repeat(16)),
        format!("{}true", "!".repeat(8)),
        vec!["event.v"; 64].join(" + "),
        format!("{}0", "event.ok?1:".repeat(31)),
        format!("{}0", "event.ok?".repeat(31)),
        format!("{}event.v{}", "[-".repeat(16), "]".repeat(16)),
        format!("{}1{}", "{1:".repeat(16), "}".repeat(16)),
        format!("{}event.v{}", "[(1+".repeat(8), ")]".repeat(8)),
        format!("{}event.v{}", "size(string(".repeat(8), "))".repeat(8)),
        format!("{}event{}", "[--------".repeat(16), ".a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s]".repeat(16)),
        format!("event{}", ".a".repeat(24)),
    ];
    let run_all = move || deep.iter().for_each(|text| drop(run(text)));
    std::thread::Builder::new().stack_size(1 << 20).spawn(run_all).unwrap().join().unwrap();
}

#[track_caller]
fn filter_refused(expression: &str, why: &str) {
    let error = Expression::compile(expression).and_then(|it| it.check_filter()).unwrap_err().to_string();
    assert!(error.contains(why), "{expression}: {error}");
}

#[track_caller]
fn value_refused(expression: &str, why: &str) {
    let error = Expression::compile(expression).and_then(|it| it.check_value()).unwrap_err().to_string();
    assert!(error.contains(why), "{expression}: {error}");
}

#[test]
fn a_filter_that_asks_nothing_is_refused() {
    filter_refused("event", "gives a map, and a filter asks");
    filter_refused("event.v + 1", "gives a number, and a filter asks");
    filter_refused("'yes'", "gives text, and a filter asks");
    filter_refused("size(event.tags)", "gives a number");
    filter_refused("event.ok ? 1 : 2", "gives a number");
    filter_refused("event.tags.map(t, t)", "gives a list");
    filter_refused("true", "is always true, so the filter lets every event through");
    filter_refused("1 > 2", "is always false, so the filter lets no event through");
    filter_refused("event.v > 1 || true", "is always true");
    filter_refused("!(event.ok && false)", "is always true");
    filter_refused("[1, 2].exists(x, x > 1)", "is always true");
    for sound in ["event.ok", "event.v > 1", "event.tags.exists(t, t == 'a')", "event.v > 1 && true"] {
        Expression::compile(sound).unwrap().check_filter().unwrap();
    }
}

#[test]
fn what_fails_for_every_event_is_refused() {
    value_refused("event.v + (event.w > 1)", "'+' cannot stand between a value and true or false");
    value_refused("'a' * event.v", "'*' cannot stand between text and a value");
    value_refused("event + 1", "'+' cannot stand between a map and a number");
    value_refused("event > 1", "'>' cannot stand between a map and a number");
    value_refused("'a' < 1", "'<' cannot stand between text and a number");
    value_refused("!event.flight.contains(1)", "what 'contains' looks for is a number and must be text");
    value_refused("contains(event.flight, 'a')", "write event.field.contains");
    value_refused("size(event.a, event.b)", "'size' takes one value, and here are 2");
    value_refused("size(5)", "what 'size' takes is a number");
    value_refused("-'a'", "'-' is text and must be a number");
    value_refused("event.v / 0", "'/' by zero");
    value_refused("int('x') + event.v", "fails for every event");
    value_refused("1.0 / 0.0", "inf is not a number that JSON has");
    value_refused("type(event.v)", "which JSON cannot hold");
    value_refused("'a'.b", "text has no field 'b'");
    value_refused("event.v in 5", "what stands behind 'in' is a number");
    value_refused("[event.v].map(x, x + {})", "'+' cannot stand between");
    for sound in
        ["1", "'web'", "event", "event.v + 1 + event.flight", "{'a': event.v}.a", "[1].map(x, x + event.v)"]
    {
        Expression::compile(sound).unwrap().check_value().unwrap();
    }
}
