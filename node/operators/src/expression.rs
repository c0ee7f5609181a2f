//! CEL expressions over `event`: compiled and checked once, run on every event.
//!
//! Arithmetic between ints and doubles promotes to double, which CEL by itself refuses: `+ - * / %`
//! are rewritten into functions of our own when compiling. Lists and maps that a macro walks go
//! through `@ordered`, which gives maps a fixed order and bounds the work of one evaluation.

use std::cell::Cell;
use std::fmt;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, operators};
use cel::common::types::{CelBool, CelDouble, CelInt, CelMap, CelUInt, DYN_TYPE};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::{Context, Env, ExecutionError, Value};
use thiserror::Error;

use crate::payload::{Payload, ordered_keys, quoted, to_json};
use crate::prescan::prescan;
use crate::spelling::nearest;

/// List elements and map keys that the macros of one evaluation may walk in all. Beyond: the event
/// fails.
const WALKED_MAX: usize = 65_536;
/// Macros within macros.
const MACROS_MAX: usize = 2;

/// Why a text is no expression. `hint` says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}; {hint}")]
pub struct BadExpression {
    pub reason: String,
    pub hint: String,
}

fn bad(reason: impl Into<String>, hint: impl Into<String>) -> BadExpression {
    BadExpression { reason: reason.into(), hint: hint.into() }
}

/// A compiled expression.
pub struct Expression {
    text: String,
    tree: IdedExpr,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({})", self.text)
    }
}

/// Functions that a user may call, beside the macros.
const FUNCTIONS: [&str; 13] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "int",
    "uint",
    "double",
    "string",
    "bool",
    "bytes",
    "type",
    "dyn",
    "has",
];
const TYPES: [&str; 10] =
    ["int", "uint", "double", "string", "bool", "bytes", "list", "map", "null_type", "type"];
const ARITHMETIC: [(&str, &str); 5] = [
    (operators::ADD, "@add"),
    (operators::SUBSTRACT, "@sub"),
    (operators::MULTIPLY, "@mul"),
    (operators::DIVIDE, "@div"),
    (operators::MODULO, "@rem"),
];

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib().with_optional_support(false);
    let two = || vec![DYN_TYPE, DYN_TYPE];
    let declared = [
        env.add_overload("@add", "dunlin_add", two(), |args| arithmetic(args, '+')),
        env.add_overload("@sub", "dunlin_sub", two(), |args| arithmetic(args, '-')),
        env.add_overload("@mul", "dunlin_mul", two(), |args| arithmetic(args, '*')),
        env.add_overload("@div", "dunlin_div", two(), |args| arithmetic(args, '/')),
        env.add_overload("@rem", "dunlin_rem", two(), |args| arithmetic(args, '%')),
        env.add_overload("@ordered", "dunlin_ordered", vec![DYN_TYPE], ordered),
    ];
    assert!(declared.iter().all(Result::is_ok), "no user and no library can declare a name with @");
    Arc::new(env)
});

thread_local! {
    /// What the macros of the evaluation in hand may still walk.
    static WALK: Cell<usize> = const { Cell::new(0) };
}

impl Expression {
    pub fn compile(text: &str) -> Result<Expression, BadExpression> {
        let simpler = "make it simpler, split it over two stages, or write a wasm function";
        prescan(text).map_err(|why| bad(format!("the expression is too large: {why}"), simpler))?;
        let mut tree = parse(text)?;
        Preparing { bound: Vec::new(), macros: 0 }.prepare(&mut tree)?;
        Ok(Expression { text: text.to_owned(), tree })
    }

    /// True, false, or a sentence.
    pub fn test(&self, event: &Payload) -> Result<bool, String> {
        self.evaluate(event, |value| match value.downcast_ref::<CelBool>() {
            Some(verdict) => Ok(*verdict.inner()),
            None => Err(format!("it gives a value of type {} instead of true or false", name_of(value))),
        })
    }

    /// The value as JSON text behind `json`, or a sentence.
    pub fn write(&self, event: &Payload, json: &mut String) -> Result<(), String> {
        self.evaluate(event, |value| to_json(value, json))
    }

    fn evaluate<T>(
        &self,
        event: &Payload,
        take: impl FnOnce(&dyn Val) -> Result<T, String>,
    ) -> Result<T, String> {
        let resolver = EventOnly(event);
        let mut context = Context::with_env(Arc::clone(&ENV));
        context.set_variable_resolver(&resolver);
        WALK.set(WALKED_MAX);
        let value = Value::resolve_val(&self.tree, &context);
        value
            .map_err(|error| sentence(&error))
            .and_then(|value| take(&*value))
            .map_err(|why| format!("the expression `{}` failed: {why}", self.text))
    }
}

/// Field by field, the JSON object that these expressions make.
pub fn write_object(fields: &[(String, Expression)], event: &Payload) -> Result<String, String> {
    let mut json = String::from("{");
    for (field, expression) in fields {
        if json.len() > 1 {
            json.push(',');
        }
        json.push_str(&quoted(field));
        json.push(':');
        expression.write(event, &mut json).map_err(|why| format!("field '{field}': {why}"))?;
    }
    json.push('}');
    Ok(json)
}

struct EventOnly<'a>(&'a Payload);

impl VariableResolver for EventOnly<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        (variable == "event").then(|| CowVal::Borrowed(&*self.0.0))
    }
}

fn parse(text: &str) -> Result<IdedExpr, BadExpression> {
    let hint = "write CEL, like event.price < 120.0 && event.route == \"FRA-LHR\"";
    // The generated parser has asserts of its own; a text that trips one is simply no expression.
    let parsed = std::panic::catch_unwind(|| ENV.parser().parse(text));
    match parsed {
        Ok(Ok(tree)) => Ok(tree),
        Ok(Err(errors)) => {
            let (at, why) = match errors.errors.first() {
                Some(error) => (error.pos.1.max(1), error.msg.trim().replace('\n', " ")),
                None => (1, "it does not parse".to_owned()),
            };
            let why = plain(why.strip_prefix("Syntax error: ").unwrap_or(&why));
            Err(bad(format!("`{text}` is no expression: at character {at}, {why}"), hint))
        }
        Err(_) => Err(bad(format!("`{text}` is no expression"), hint)),
    }
}

/// What the parser says in terms of its grammar, in words of whoever wrote the text.
fn plain(why: &str) -> String {
    let between =
        |before: &str, behind: &str| why.strip_prefix(before).and_then(|rest| rest.split_once(behind));
    if why.contains("'<EOF>'") {
        return match between("missing ", " at ") {
            Some((token, _)) => format!("{token} is missing"),
            None => "it ends too early".to_owned(),
        };
    }
    let misplaced = ["extraneous input ", "mismatched input "]
        .iter()
        .find_map(|before| between(before, " expecting "))
        .map(|(token, _)| token)
        .or_else(|| why.strip_prefix("no viable alternative at input "));
    if let Some(token) = misplaced {
        return format!("{token} does not fit");
    }
    match why.strip_prefix("token recognition error at: ") {
        Some(token) => format!("{token} is nothing that CEL knows"),
        None => why.to_owned(),
    }
}

/// Checks a parsed tree and rewrites it for running.
struct Preparing {
    /// Names that the macros around this place have bound.
    bound: Vec<String>,
    macros: usize,
}

impl Preparing {
    fn prepare(&mut self, node: &mut IdedExpr) -> Result<(), BadExpression> {
        match &mut node.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => self.prepare(&mut select.operand),
            Expr::List(list) => list.elements.iter_mut().try_for_each(|item| self.prepare(item)),
            Expr::Map(map) => map.entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.prepare(&mut entry.key)?;
                    self.prepare(&mut entry.value)
                }
                EntryExpr::StructField(_) => Err(no_structs()),
            }),
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(walk) => {
                self.prepare(&mut walk.iter_range)?;
                let range = std::mem::take(&mut walk.iter_range);
                let ordered = CallExpr { func_name: "@ordered".to_owned(), target: None, args: vec![range] };
                walk.iter_range = IdedExpr { id: node.id, expr: Expr::Call(ordered) };
                self.prepare(&mut walk.accu_init)?;
                self.macros += 1;
                if self.macros > MACROS_MAX {
                    let reason = format!("more than {MACROS_MAX} macros stand within one another");
                    return Err(bad(reason, "split it over two stages, or write a wasm function"));
                }
                let bound = self.bound.len();
                self.bound.push(walk.iter_var.clone());
                self.bound.extend(walk.iter_var2.clone());
                self.bound.push(walk.accu_var.clone());
                self.prepare(&mut walk.loop_cond)?;
                self.prepare(&mut walk.loop_step)?;
                self.prepare(&mut walk.result)?;
                self.bound.truncate(bound);
                self.macros -= 1;
                Ok(())
            }
            Expr::Struct(_) => Err(no_structs()),
            Expr::Unspecified => Err(bad("the expression is empty", "write one, like event.price < 120.0")),
        }
    }

    fn name(&self, name: &str) -> Result<(), BadExpression> {
        let known = name == "event" || TYPES.contains(&name) || self.bound.iter().any(|bound| bound == name);
        match known {
            true => Ok(()),
            false => {
                let reason = format!("there is no variable '{name}', only event, the payload");
                let meant = match strsim::damerau_levenshtein(name, "event") < 3 {
                    true => "event".to_owned(),
                    false => format!("event.{name}"),
                };
                Err(bad(reason, format!("did you mean '{meant}'?")))
            }
        }
    }

    fn call(&mut self, call: &mut CallExpr) -> Result<(), BadExpression> {
        // `@result + [x]` of the map and filter macros stays: the interpreter appends in place.
        let appends = matches!(call.args.as_slice(), [first, second]
            if matches!(&first.expr, Expr::Ident(name) if name.starts_with('@'))
                && matches!(second.expr, Expr::List(_)));
        if let Some(target) = &mut call.target {
            self.prepare(target)?;
        }
        call.args.iter_mut().try_for_each(|arg| self.prepare(arg))?;
        if let Some((_, ours)) = ARITHMETIC.iter().find(|(theirs, _)| *theirs == call.func_name) {
            if !appends {
                call.func_name = (*ours).to_owned();
            }
            return Ok(());
        }
        let name = call.func_name.as_str();
        let operator = name.starts_with(['_', '-', '!', '@']) && call.target.is_none();
        if operator || FUNCTIONS.contains(&name) {
            return Ok(());
        }
        let macros = ["all", "exists", "exists_one", "map", "filter"];
        let known = FUNCTIONS.iter().chain(&macros).copied();
        Err(bad(format!("there is no function '{name}'"), nearest(name, known)))
    }
}

fn no_structs() -> BadExpression {
    bad("messages are not there in a pipeline's expressions", "use a map, like {\"price\": event.price}")
}

fn double(value: &dyn Val) -> Option<f64> {
    let double = value.downcast_ref::<CelDouble>().map(|double| *double.inner());
    double
        .or_else(|| value.downcast_ref::<CelInt>().map(|int| *int.inner() as f64))
        .or_else(|| value.downcast_ref::<CelUInt>().map(|int| *int.inner() as f64))
}

/// `a operator b`; when one of them is a double, so is the other.
fn arithmetic<'b, 'v>(args: Vec<CowVal<'b, 'v>>, operator: char) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let mut args = args.into_iter();
    let (Some(left), Some(right)) = (args.next(), args.next()) else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    let is_double = |value: &dyn Val| value.downcast_ref::<CelDouble>().is_some();
    if (is_double(&*left) || is_double(&*right))
        && let (Some(left), Some(right)) = (double(&*left), double(&*right))
    {
        return Ok(CowVal::owned(CelDouble::from(match operator {
            '+' => left + right,
            '-' => left - right,
            '*' => left * right,
            '/' => left / right,
            _ => left % right,
        })));
    }
    let none =
        || ExecutionError::no_such_overload(&operator.to_string(), vec![name_of(&*left), name_of(&*right)]);
    let right_value = &*right;
    let result = match operator {
        '+' => left.as_adder().ok_or_else(none)?.add(right_value),
        '-' => left.as_subtractor().ok_or_else(none)?.sub(right_value),
        '*' => left.as_multiplier().ok_or_else(none)?.mul(right_value),
        '/' => left.as_divider().ok_or_else(none)?.div(right_value),
        _ => left.as_modder().ok_or_else(none)?.modulo(right_value),
    };
    Ok(CowVal::Owned(result?.into_owned()))
}

/// What a macro walks: a list as it is, a map as its keys in order.
fn ordered<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let Some(range) = args.into_iter().next() else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    let keys = range.downcast_ref::<CelMap>().map(ordered_keys);
    let range = keys.map_or(range, CowVal::owned);
    let items = range.as_sizer().map_or(0, |sizer| *sizer.size().inner());
    let items = usize::try_from(items).unwrap_or(usize::MAX);
    match WALK.get().checked_sub(items) {
        Some(left) => {
            WALK.set(left);
            Ok(range)
        }
        None => {
            let message = format!("it walks more than {WALKED_MAX} items for one event");
            Err(ExecutionError::function_error("macro", message))
        }
    }
}

fn name_of(value: &dyn Val) -> String {
    value.get_type().name().to_owned()
}

/// An error as a clause. It never prints a map: those have no order.
fn sentence(error: &ExecutionError) -> String {
    let kind = |value: &Value| value.type_of().to_string();
    match error {
        ExecutionError::NoSuchKey(key) => format!("there is no field '{key}'"),
        ExecutionError::NoSuchOverload(overload) => {
            let operator = overload.function().trim_matches(['_', '@']);
            format!("'{operator}' cannot be applied to {}", overload.argument_types().join(" and "))
        }
        ExecutionError::UnsupportedBinaryOperator(operator, left, right) => {
            let operator = match *operator {
                "add" => "+",
                "sub" => "-",
                "mul" => "*",
                "div" => "/",
                "rem" => "%",
                other => other,
            };
            format!("'{operator}' cannot be applied to {} and {}", kind(left), kind(right))
        }
        ExecutionError::ValuesNotComparable(left, right) => {
            format!("{} and {} cannot be compared", kind(left), kind(right))
        }
        ExecutionError::DivisionByZero(_) => "it divides by zero".to_owned(),
        ExecutionError::RemainderByZero(_) => "it takes a remainder by zero".to_owned(),
        ExecutionError::Overflow(..) => "the result does not fit into a 64-bit integer".to_owned(),
        ExecutionError::IndexOutOfBounds(_) => "an index lies outside its list".to_owned(),
        ExecutionError::DuplicateKey(_) => "a map has the same key twice".to_owned(),
        ExecutionError::UnexpectedType { got, want } => format!("a {got} stands where a {want} is needed"),
        ExecutionError::FunctionError { function, message } if function == "macro" => message.clone(),
        ExecutionError::FunctionError { function, message } => {
            format!("{function}: {}", message.chars().take(200).collect::<String>())
        }
        ExecutionError::UndeclaredReference(name) => format!("nothing is called '{name}'"),
        ExecutionError::UnsupportedKeyType(value) => format!("a {} cannot be a map's key", kind(value)),
        other => {
            // Its name only: what it holds may be a map.
            let name = format!("{other:?}");
            let name: String = name.chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
            format!("it cannot be evaluated ({name})")
        }
    }
}

mod kind;
#[cfg(test)]
mod tests;
