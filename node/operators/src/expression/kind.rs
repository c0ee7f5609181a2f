//! What a prepared expression can give, found without any event: so that one which could never
//! work is refused with its file, and not found out by a dead letter for every event.
//!
//! Fields of an event may hold anything, so most is unknown and passes. What is refused fails
//! whatever the event holds: an operator between kinds that never go together, a call that no
//! function takes, a part without the event that fails when it is run.

use std::sync::Arc;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::{Context, Value};

use super::{BadExpression, ENV, Expression, TYPES, bad, sentence};
use crate::payload::Payload;

/// What a value is, as far as the text tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    Bool,
    Number,
    Text,
    Bytes,
    List,
    Map,
    Null,
    Type,
}

impl Kind {
    fn shown(self) -> &'static str {
        match self {
            Kind::Any => "a value",
            Kind::Bool => "true or false",
            Kind::Number => "a number",
            Kind::Text => "text",
            Kind::Bytes => "bytes",
            Kind::List => "a list",
            Kind::Map => "a map",
            Kind::Null => "null",
            Kind::Type => "a type",
        }
    }

    fn may_be(self, kinds: &[Kind]) -> bool {
        self == Kind::Any || kinds.contains(&self)
    }
}

/// What a part gives; `truth` when it is true, or false, whatever the event holds.
#[derive(Debug, Clone, Copy)]
struct Given {
    kind: Kind,
    truth: Option<bool>,
}

impl From<Kind> for Given {
    fn from(kind: Kind) -> Given {
        Given { kind, truth: None }
    }
}

impl Expression {
    /// Refuses what can never be true or false, and what is always the same of both.
    pub fn check_filter(&self) -> Result<(), BadExpression> {
        let given = Looking::default().given(&self.tree)?;
        if !given.kind.may_be(&[Kind::Bool]) {
            let reason = format!(
                "`{}` gives {}, and a filter asks what is true or false",
                self.text,
                given.kind.shown()
            );
            return Err(bad(reason, "compare it, like event.price < 120.0"));
        }
        let constant = if mentions_event(&self.tree) {
            given.truth
        } else {
            Some(self.test(&nothing()).is_ok_and(|yes| yes))
        };
        match constant {
            None => Ok(()),
            Some(truth) => {
                let what = if truth { "every event" } else { "no event" };
                let reason = format!("`{}` is always {truth}, so the filter lets {what} through", self.text);
                Err(bad(reason, "let it look at a field of the event, or leave the stage out"))
            }
        }
    }

    /// Refuses what fails whatever the event holds, and what no JSON can hold.
    pub fn check_value(&self) -> Result<(), BadExpression> {
        let given = Looking::default().given(&self.tree)?;
        if matches!(given.kind, Kind::Type | Kind::Bytes) {
            let reason = format!("`{}` gives {}, which JSON cannot hold", self.text, given.kind.shown());
            return Err(bad(reason, "make text of it with string(…), or compare it"));
        }
        if !mentions_event(&self.tree) {
            self.write(&nothing(), &mut String::new()).map_err(|why| bad(why, "correct it"))?;
        }
        Ok(())
    }
}

/// A part that looks at no event and at nothing that a macro bound: it does the same every time.
fn run_alone(node: &IdedExpr) -> Result<(), BadExpression> {
    let context = Context::with_env(Arc::clone(&ENV));
    Value::resolve_val(node, &context).map(drop).map_err(|error| never(sentence(&error)))
}

/// An event without fields, for parts that look at none.
fn nothing() -> Payload {
    Payload(Box::new(cel::common::types::CelMap::from(std::collections::HashMap::new())))
}

/// Whether any part depends on the event.
fn mentions_event(node: &IdedExpr) -> bool {
    names(node, &|name| name == "event")
}

/// Whether any name in this part is one of those.
fn names(node: &IdedExpr, those: &dyn Fn(&str) -> bool) -> bool {
    let any = |node: &IdedExpr| names(node, those);
    match &node.expr {
        Expr::Ident(name) => those(name),
        Expr::Literal(_) | Expr::Unspecified | Expr::Struct(_) => false,
        Expr::Select(select) => any(&select.operand),
        Expr::List(list) => list.elements.iter().any(any),
        Expr::Map(map) => map.entries.iter().any(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => any(&entry.key) || any(&entry.value),
            EntryExpr::StructField(field) => any(&field.value),
        }),
        Expr::Call(call) => call.target.as_deref().is_some_and(any) || call.args.iter().any(any),
        Expr::Comprehension(walk) => {
            [&walk.iter_range, &walk.accu_init, &walk.loop_cond, &walk.loop_step, &walk.result]
                .into_iter()
                .any(any)
        }
    }
}

/// Goes through a tree. The trees are small: their depth and their terms are bounded before.
#[derive(Default)]
struct Looking {
    /// Names that the macros around this place have bound, and what they hold.
    bound: Vec<(String, Kind)>,
}

impl Looking {
    fn given(&mut self, node: &IdedExpr) -> Result<Given, BadExpression> {
        match &node.expr {
            Expr::Literal(literal) => Ok(of_literal(literal)),
            Expr::Ident(name) => Ok(self.of_name(name).into()),
            Expr::Select(select) => {
                let kind = self.given(&select.operand)?.kind;
                if !kind.may_be(&[Kind::Map]) {
                    return Err(never(format!("{} has no field '{}'", kind.shown(), select.field)));
                }
                Ok(if select.test { Kind::Bool } else { Kind::Any }.into())
            }
            Expr::List(list) => {
                list.elements.iter().try_for_each(|item| self.given(item).map(drop))?;
                Ok(Kind::List.into())
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
                    let key = self.given(&entry.key)?.kind;
                    if !key.may_be(&[Kind::Text, Kind::Number, Kind::Bool]) {
                        return Err(never(format!("{} cannot be a map's key", key.shown())));
                    }
                    self.given(&entry.value)?;
                }
                Ok(Kind::Map.into())
            }
            Expr::Call(call) => {
                let given = self.of_call(call)?;
                if !names(node, &|name| !TYPES.contains(&name)) {
                    run_alone(node)?;
                }
                Ok(given)
            }
            Expr::Comprehension(walk) => self.of_walk(walk),
            Expr::Struct(_) | Expr::Unspecified => Ok(Kind::Any.into()),
        }
    }

    fn of_name(&self, name: &str) -> Kind {
        match self.bound.iter().rev().find(|(bound, _)| bound == name) {
            Some((_, kind)) => *kind,
            None if name == "event" => Kind::Map,
            None if TYPES.contains(&name) => Kind::Type,
            None => Kind::Any,
        }
    }

    fn of_walk(&mut self, walk: &ComprehensionExpr) -> Result<Given, BadExpression> {
        self.given(&walk.iter_range)?;
        let begins = self.given(&walk.accu_init)?.kind;
        let bound = self.bound.len();
        self.bound.push((walk.iter_var.clone(), Kind::Any));
        self.bound.extend(walk.iter_var2.clone().map(|name| (name, Kind::Any)));
        self.bound.push((walk.accu_var.clone(), begins));
        self.given(&walk.loop_cond)?;
        self.given(&walk.loop_step)?;
        let result = self.given(&walk.result)?.kind;
        self.bound.truncate(bound);
        Ok(result.into())
    }

    fn of_call(&mut self, call: &CallExpr) -> Result<Given, BadExpression> {
        let mut kinds = Vec::new();
        for part in call.target.as_deref().into_iter().chain(&call.args) {
            kinds.push(self.given(part)?);
        }
        match (call.func_name.as_str(), kinds.as_slice()) {
            (operators::CONDITIONAL, [condition, yes, no]) => {
                need("the condition in front of '?'", condition.kind, &[Kind::Bool])?;
                Ok(if yes.kind == no.kind { yes.kind } else { Kind::Any }.into())
            }
            (operators::LOGICAL_AND, [a, b]) => logical("&&", *a, *b, false),
            (operators::LOGICAL_OR, [a, b]) => logical("||", *a, *b, true),
            (operators::LOGICAL_NOT, [a]) => {
                need("'!'", a.kind, &[Kind::Bool])?;
                Ok(Given { kind: Kind::Bool, truth: a.truth.map(|truth| !truth) })
            }
            (operators::NEGATE, [a]) => {
                need("'-'", a.kind, &[Kind::Number])?;
                Ok(Kind::Number.into())
            }
            ("@add", [a, b]) => {
                pair("+", a.kind, b.kind, &[Kind::Number, Kind::Text, Kind::List, Kind::Bytes])
            }
            ("@sub", [a, b]) => pair("-", a.kind, b.kind, &[Kind::Number]),
            ("@mul", [a, b]) => pair("*", a.kind, b.kind, &[Kind::Number]),
            ("@div" | "@rem", [a, b]) => {
                let operator = if call.func_name == "@div" { "/" } else { "%" };
                if call.args.last().is_some_and(is_zero) {
                    return Err(never(format!("'{operator}' by zero has no result")));
                }
                pair(operator, a.kind, b.kind, &[Kind::Number])
            }
            (operators::ADD, _) => Ok(Kind::List.into()),
            (
                order @ (operators::LESS
                | operators::LESS_EQUALS
                | operators::GREATER
                | operators::GREATER_EQUALS),
                [a, b],
            ) => {
                let ordered = [Kind::Number, Kind::Text, Kind::Bool, Kind::Bytes];
                pair(order.trim_matches('_'), a.kind, b.kind, &ordered)?;
                Ok(Kind::Bool.into())
            }
            (operators::IN, [_, b]) => {
                need("what stands behind 'in'", b.kind, &[Kind::List, Kind::Map])?;
                Ok(Kind::Bool.into())
            }
            (operators::INDEX, [a, _]) => {
                need("what stands in front of '['", a.kind, &[Kind::List, Kind::Map])?;
                Ok(Kind::Any.into())
            }
            ("@ordered", [a]) => {
                need("what a macro walks", a.kind, &[Kind::List, Kind::Map])?;
                Ok(*a)
            }
            (operators::EQUALS | operators::NOT_EQUALS | operators::NOT_STRICTLY_FALSE, _) => {
                Ok(Kind::Bool.into())
            }
            (name, _) => of_function(name, call, &kinds),
        }
    }
}

fn of_literal(literal: &LiteralValue) -> Given {
    match literal {
        LiteralValue::Boolean(truth) => Given { kind: Kind::Bool, truth: Some(*truth.inner()) },
        LiteralValue::Bytes(_) => Kind::Bytes.into(),
        LiteralValue::Double(_) | LiteralValue::Int(_) | LiteralValue::UInt(_) => Kind::Number.into(),
        LiteralValue::Null => Kind::Null.into(),
        LiteralValue::String(_) => Kind::Text.into(),
    }
}

fn is_zero(node: &IdedExpr) -> bool {
    match &node.expr {
        Expr::Literal(LiteralValue::Int(zero)) => *zero.inner() == 0,
        Expr::Literal(LiteralValue::UInt(zero)) => *zero.inner() == 0,
        _ => false,
    }
}

/// A function by its name: how it is called, what it takes, what it gives.
fn of_function(name: &str, call: &CallExpr, given: &[Given]) -> Result<Given, BadExpression> {
    let kinds: Vec<Kind> = given.iter().map(|given| given.kind).collect();
    let scalars = [Kind::Bool, Kind::Number, Kind::Text, Kind::Bytes];
    let (takes, gives): (&[Kind], Kind) = match name {
        "contains" | "startsWith" | "endsWith" => {
            let [text, part] = kinds.as_slice() else { return Err(called(name)) };
            if call.target.is_none() {
                return Err(called(name));
            }
            need(&format!("what '{name}' is asked of"), *text, &[Kind::Text])?;
            need(&format!("what '{name}' looks for"), *part, &[Kind::Text])?;
            return Ok(Kind::Bool.into());
        }
        "size" => (&[Kind::Text, Kind::Bytes, Kind::List, Kind::Map], Kind::Number),
        "int" | "uint" | "double" => (&[Kind::Number, Kind::Text], Kind::Number),
        "string" => (&scalars, Kind::Text),
        "bool" => (&[Kind::Bool, Kind::Text], Kind::Bool),
        "bytes" => (&[Kind::Text, Kind::Bytes], Kind::Bytes),
        "type" => return one(name, &kinds).map(|_| Kind::Type.into()),
        "dyn" => return one(name, &kinds).map(Given::from),
        _ => return Ok(Kind::Any.into()),
    };
    need(&format!("what '{name}' takes"), one(name, &kinds)?, takes)?;
    Ok(gives.into())
}

fn one(name: &str, kinds: &[Kind]) -> Result<Kind, BadExpression> {
    match kinds {
        [kind] => Ok(*kind),
        _ => Err(bad(
            format!("'{name}' takes one value, and here are {}", kinds.len()),
            format!("write {name}(event.field)"),
        )),
    }
}

fn called(name: &str) -> BadExpression {
    let reason = format!("'{name}' stands behind the text that it is asked of, with one text in brackets");
    bad(reason, format!("write event.field.{name}(\"LH\")"))
}

fn never(why: String) -> BadExpression {
    bad(format!("the expression fails for every event: {why}"), "correct it")
}

fn need(what: &str, kind: Kind, kinds: &[Kind]) -> Result<(), BadExpression> {
    if kind.may_be(kinds) {
        return Ok(());
    }
    let wanted: Vec<&str> = kinds.iter().map(|kind| kind.shown()).collect();
    Err(never(format!("{what} is {} and must be {}", kind.shown(), wanted.join(" or "))))
}

/// Two operands of one kind out of `kinds`.
fn pair(operator: &str, a: Kind, b: Kind, kinds: &[Kind]) -> Result<Given, BadExpression> {
    let fits = a.may_be(kinds) && b.may_be(kinds) && (a == b || a == Kind::Any || b == Kind::Any);
    if !fits {
        return Err(never(format!("'{operator}' cannot stand between {} and {}", a.shown(), b.shown())));
    }
    Ok(if a == Kind::Any { b } else { a }.into())
}

/// `&&` and `||`; `decides` is what settles the whole by itself.
fn logical(operator: &str, a: Given, b: Given, decides: bool) -> Result<Given, BadExpression> {
    need(&format!("a side of '{operator}'"), a.kind, &[Kind::Bool])?;
    need(&format!("a side of '{operator}'"), b.kind, &[Kind::Bool])?;
    let truth = match (a.truth, b.truth) {
        (Some(a), _) if a == decides => Some(decides),
        (_, Some(b)) if b == decides => Some(decides),
        (Some(_), Some(_)) => Some(!decides),
        _ => None,
    };
    Ok(Given { kind: Kind::Bool, truth })
}
