//! The part of Go's template language that people use with `--format`.
//!
//! Fields (`.A.B`, also below a range), `$` for the root, the functions `json index len join upper lower title println
//! eq ne not and or`, pipes, `if`/`else if`/`else`, `range`/`else`, `with`, comments and `{{-`/`-}}`. No variables, no templates in templates.

use serde_json::Value;

/// A template that has been read.
pub(crate) struct Template(Vec<Node>);

enum Node {
    Text(String),
    Show(Pipe),
    If(Vec<(Pipe, Vec<Node>)>, Vec<Node>),
    Range(Pipe, Vec<Node>, Vec<Node>),
    With(Pipe, Vec<Node>, Vec<Node>),
}

/// Commands from left to right, each given the result of the one before as its last argument.
type Pipe = Vec<Vec<Term>>;

#[derive(Debug, Clone, PartialEq)]
enum Term {
    Field(Vec<String>),
    Root(Vec<String>),
    Name(String),
    Literal(Value),
    Group(Vec<Vec<Term>>),
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Text(String),
    Action(String),
}

impl Template {
    /// Reads a template.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let pieces = split(text)?;
        let mut at = 0;
        let (nodes, end) = block(&pieces, &mut at)?;
        match end {
            None => Ok(Self(nodes)),
            Some(word) => Err(format!("template has {{{{{word}}}}} without a beginning")),
        }
    }

    /// Fills the template in.
    pub(crate) fn render(&self, data: &Value) -> Result<String, String> {
        let mut text = String::new();
        render(&self.0, data, data, &mut text)?;
        Ok(text)
    }

    /// The names of the fields shown, in order: headings for a table.
    pub(crate) fn fields(&self) -> Vec<String> {
        let name = |node: &Node| match node {
            Node::Show(pipe) => pipe.iter().flatten().find_map(|term| match term {
                Term::Field(path) | Term::Root(path) => path.last().cloned(),
                _ => None,
            }),
            _ => None,
        };
        self.0.iter().filter_map(name).collect()
    }
}

fn split(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    while let Some((before, after)) = rest.split_once("{{") {
        let (mut action, tail) = after.split_once("}}").ok_or("template has {{ without }}")?;
        let mut before = if trim_next { before.trim_start() } else { before };
        if let Some(inner) = action.strip_prefix("- ") {
            (before, action) = (before.trim_end(), inner);
        }
        trim_next = action.ends_with(" -");
        action = action.strip_suffix(" -").unwrap_or(action).trim();
        pieces.push(Piece::Text(before.to_owned()));
        if !action.starts_with("/*") {
            pieces.push(Piece::Action(action.to_owned()));
        }
        rest = tail;
    }
    pieces.push(Piece::Text(if trim_next { rest.trim_start() } else { rest }.to_owned()));
    Ok(pieces)
}

/// Reads up to the `end` or `else` that closes this block, and tells which it was.
fn block(pieces: &[Piece], at: &mut usize) -> Result<(Vec<Node>, Option<String>), String> {
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.get(*at) {
        *at += 1;
        let action = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text.clone()));
                continue;
            }
            Piece::Action(action) => action,
        };
        let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((action, ""));
        match word {
            "end" | "else" => return Ok((nodes, Some(action.clone()))),
            "if" => nodes.push(conditions(rest, pieces, at)?),
            "range" | "with" => {
                let pipe = pipe(rest)?;
                let (body, other) = (closed(pieces, at)?, Vec::new());
                let (body, other) = match body {
                    (body, true) => (body, closed(pieces, at)?.0),
                    (body, false) => (body, other),
                };
                nodes.push(match word {
                    "range" => Node::Range(pipe, body, other),
                    _ => Node::With(pipe, body, other),
                });
            }
            _ => nodes.push(Node::Show(pipe(action)?)),
        }
    }
    Ok((nodes, None))
}

/// A block that must be closed; true when an `else` closed it.
fn closed(pieces: &[Piece], at: &mut usize) -> Result<(Vec<Node>, bool), String> {
    match block(pieces, at)? {
        (nodes, Some(word)) => Ok((nodes, word == "else")),
        (_, None) => Err("template has a block without {{end}}".to_owned()),
    }
}

fn conditions(first: &str, pieces: &[Piece], at: &mut usize) -> Result<Node, String> {
    let mut branches = Vec::new();
    let mut condition = first.to_owned();
    loop {
        let (body, end) = block(pieces, at)?;
        branches.push((pipe(&condition)?, body));
        match end.as_deref() {
            Some("end") => return Ok(Node::If(branches, Vec::new())),
            Some("else") => return Ok(Node::If(branches, closed(pieces, at)?.0)),
            Some(other) => match other.strip_prefix("else if ") {
                Some(next) => condition = next.to_owned(),
                None => return Err(format!("template has {{{{{other}}}}}")),
            },
            None => return Err("template has an if without {{end}}".to_owned()),
        }
    }
}

fn pipe(text: &str) -> Result<Pipe, String> {
    let mut letters: Vec<char> = text.chars().collect();
    letters.push('\n');
    let mut at = 0;
    let pipe = commands(&letters, &mut at, false)?;
    Ok(pipe)
}

fn commands(text: &[char], at: &mut usize, grouped: bool) -> Result<Pipe, String> {
    let mut pipe = vec![Vec::new()];
    while *at < text.len() {
        let letter = text[*at];
        *at += 1;
        match letter {
            ')' if grouped => return Ok(pipe),
            c if c.is_whitespace() => {}
            '|' => pipe.push(Vec::new()),
            '(' => {
                let group = commands(text, at, true)?;
                push(&mut pipe, Term::Group(group));
            }
            '"' | '`' => {
                let word = quoted(text, at, letter)?;
                push(&mut pipe, Term::Literal(Value::String(word)));
            }
            _ => {
                *at -= 1;
                push(&mut pipe, word(text, at)?);
            }
        }
    }
    match grouped || pipe.iter().any(Vec::is_empty) {
        true => Err("template has an empty or unclosed action".to_owned()),
        false => Ok(pipe),
    }
}

fn push(pipe: &mut Pipe, term: Term) {
    pipe.last_mut().expect("a pipe has at least one command").push(term);
}

fn quoted(text: &[char], at: &mut usize, quote: char) -> Result<String, String> {
    let mut word = String::new();
    while let Some(letter) = text.get(*at).copied() {
        *at += 1;
        match letter {
            c if c == quote => return Ok(word),
            '\\' if quote == '"' => {
                let escaped = text.get(*at).copied().unwrap_or('\\');
                *at += 1;
                word.push(match escaped {
                    'n' => '\n',
                    't' => '\t',
                    other => other,
                });
            }
            other => word.push(other),
        }
    }
    Err("template has an unclosed string".to_owned())
}

fn word(text: &[char], at: &mut usize) -> Result<Term, String> {
    let start = *at;
    while text.get(*at).is_some_and(|c| !c.is_whitespace() && !matches!(c, '|' | '(' | ')' | '"')) {
        *at += 1;
    }
    let word: String = text[start..*at].iter().collect();
    let path = |text: &str| text.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    Ok(match word.as_str() {
        "true" | "false" => Term::Literal(Value::Bool(word == "true")),
        _ if word.starts_with('$') => Term::Root(path(&word[1..])),
        _ if word.starts_with('.') => Term::Field(path(&word)),
        _ => match word.parse::<i64>() {
            Ok(number) => Term::Literal(Value::from(number)),
            Err(_) => Term::Name(word),
        },
    })
}

fn render(nodes: &[Node], root: &Value, dot: &Value, to: &mut String) -> Result<(), String> {
    for node in nodes {
        match node {
            Node::Text(text) => to.push_str(text),
            Node::Show(pipe) => to.push_str(&show(&evaluate(pipe, root, dot)?)),
            Node::If(branches, other) => {
                let mut body = other;
                for (condition, branch) in branches {
                    if truth(&evaluate(condition, root, dot)?) {
                        body = branch;
                        break;
                    }
                }
                render(body, root, dot, to)?;
            }
            Node::With(pipe, body, other) => {
                let value = evaluate(pipe, root, dot)?;
                match truth(&value) {
                    true => render(body, root, &value, to)?,
                    false => render(other, root, dot, to)?,
                }
            }
            Node::Range(pipe, body, other) => {
                range(&evaluate(pipe, root, dot)?, (body, other), (root, dot), to)?
            }
        }
    }
    Ok(())
}

fn range(
    value: &Value,
    (body, other): (&[Node], &[Node]),
    (root, dot): (&Value, &Value),
    to: &mut String,
) -> Result<(), String> {
    match value {
        _ if !truth(value) => render(other, root, dot, to),
        Value::Array(items) => items.iter().try_for_each(|item| render(body, root, item, to)),
        Value::Object(items) => items.values().try_for_each(|item| render(body, root, item, to)),
        _ => Err("template ranges over something that is no list".to_owned()),
    }
}

fn evaluate(pipe: &Pipe, root: &Value, dot: &Value) -> Result<Value, String> {
    let mut last: Option<Value> = None;
    for command in pipe {
        let (head, rest) = command.split_first().ok_or("template has an empty command")?;
        last = Some(match head {
            Term::Name(name) => {
                let given: Result<Vec<Value>, String> =
                    rest.iter().map(|term| value(term, root, dot)).collect();
                let mut given = given?;
                given.extend(last.take());
                call(name, &given)?
            }
            term => value(term, root, dot)?,
        });
    }
    last.ok_or_else(|| "template has an empty action".to_owned())
}

fn value(term: &Term, root: &Value, dot: &Value) -> Result<Value, String> {
    match term {
        Term::Field(path) => field(dot, path),
        Term::Root(path) => field(root, path),
        Term::Literal(value) => Ok(value.clone()),
        Term::Group(pipe) => evaluate(pipe, root, dot),
        Term::Name(name) => call(name, &[]),
    }
}

fn field(from: &Value, path: &[String]) -> Result<Value, String> {
    let mut value = from;
    for part in path {
        value = match value {
            Value::Object(fields) => {
                fields.get(part).ok_or_else(|| format!("template asks for .{part}, which is not there"))?
            }
            Value::Null => return Ok(Value::Null),
            _ => return Err(format!("template asks for .{part} of something without fields")),
        };
    }
    Ok(value.clone())
}

fn call(name: &str, given: &[Value]) -> Result<Value, String> {
    let text = |index: usize| given.get(index).map(show).unwrap_or_default();
    Ok(match name {
        "json" => Value::String(given.first().unwrap_or(&Value::Null).to_string()),
        "len" => Value::from(length(given.first().unwrap_or(&Value::Null))),
        "index" => {
            given[1.min(given.len())..].iter().try_fold(given.first().cloned().unwrap_or_default(), step)?
        }
        "join" => match given.first() {
            Some(Value::Array(items)) => {
                Value::String(items.iter().map(show).collect::<Vec<_>>().join(&text(1)))
            }
            _ => return Err("template joins something that is no list".to_owned()),
        },
        "upper" => Value::String(text(0).to_uppercase()),
        "lower" => Value::String(text(0).to_lowercase()),
        "title" => Value::String(
            text(0).chars().take(1).flat_map(char::to_uppercase).chain(text(0).chars().skip(1)).collect(),
        ),
        "print" => Value::String(given.iter().map(show).collect()),
        "println" => Value::String(given.iter().map(show).collect::<Vec<_>>().join(" ") + "\n"),
        "eq" => Value::Bool(given.iter().skip(1).any(|other| Some(other) == given.first())),
        "ne" => Value::Bool(given.first() != given.get(1)),
        "not" => Value::Bool(!given.first().is_some_and(truth)),
        "and" => given.iter().find(|v| !truth(v)).or(given.last()).cloned().unwrap_or_default(),
        "or" => given.iter().find(|v| truth(v)).or(given.last()).cloned().unwrap_or_default(),
        _ => return Err(format!("template calls {name}, which is not known here")),
    })
}

fn step(from: Value, key: &Value) -> Result<Value, String> {
    match (&from, key) {
        (Value::Object(fields), Value::String(key)) => Ok(fields.get(key).cloned().unwrap_or_default()),
        (Value::Array(items), Value::Number(number)) => {
            let found = number.as_u64().and_then(|n| items.get(n as usize));
            found.cloned().ok_or_else(|| format!("template asks for item {number} of {}", items.len()))
        }
        _ => Err("template indexes something that cannot be".to_owned()),
    }
}

fn length(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.len(),
        Value::Object(fields) => fields.len(),
        Value::String(text) => text.len(),
        _ => 0,
    }
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        other => length(other) > 0,
    }
}

/// As Go prints it.
fn show(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let pairs: Vec<String> =
                fields.iter().map(|(key, value)| format!("{key}:{}", show(value))).collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn templates_render_as_in_go() {
        let data = json!({"Id": "sha256:ab", "N": null, "Z": 0, "Tags": ["a", "b"], "Config": {"Env": ["A=1"], "Labels": {"k.x": "v"}}});
        for (template, shown) in [
            ("{{.Id}}", "sha256:ab"),
            ("{{ .Config.Env }}", "[A=1]"),
            ("{{json .Config}}", r#"{"Env":["A=1"],"Labels":{"k.x":"v"}}"#),
            ("{{.Tags | json}}", r#"["a","b"]"#),
            (r#"{{index .Config.Labels "k.x"}}"#, "v"),
            ("{{index .Tags 1}}", "b"),
            (r#"{{index (index .Tags 0) | upper}}"#, "A"),
            ("{{range .Tags}}<{{.}}{{$.Id}}>{{end}}", "<asha256:ab><bsha256:ab>"),
            ("{{range .N}}x{{else}}none{{end}}", "none"),
            ("{{if .N}}n{{else if .Z}}z{{else}}e{{end}}", "e"),
            ("{{with .Config}}{{.Env}}{{end}}", "[A=1]"),
            (r#"{{join .Tags ", "}}"#, "a, b"),
            ("{{len .Tags}}", "2"),
            ("a {{- /* c */ -}} b", "ab"),
            ("{{.Config.Labels}}", "map[k.x:v]"),
            ("{{.N}}{{.N.Deeper}}", "<nil><nil>"),
            (r#"{{if eq .Id "sha256:ab"}}y{{end}}"#, "y"),
            ("{{println .Id}}", "sha256:ab\n"),
            ("plain", "plain"),
        ] {
            assert_eq!(
                Template::parse(template).and_then(|t| t.render(&data)).as_deref(),
                Ok(shown),
                "{template}"
            );
        }
    }

    #[test]
    fn templates_that_mean_nothing_are_refused() {
        let data = json!({"Id": "x"});
        for bad in [
            "{{",
            "{{.Id",
            "{{end}}",
            "{{if .Id}}",
            "{{range .Id}}{{end}}",
            "{{.Nope}}",
            "{{nope .Id}}",
            "{{}}",
            "{{\"a}}",
            "{{(.Id}}",
            "{{.Id | }}",
            "{{index .Id 1}}",
            "{{else}}",
        ] {
            assert!(Template::parse(bad).and_then(|t| t.render(&data)).is_err(), "{bad}");
        }
    }
}
