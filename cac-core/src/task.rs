//! Named tasks: programs that admins describe in a file (`JOB_TASKS_FILE`), for others to start with parameters and without a
//! shell. This file is the description and its checks; `job/task.rs` runs them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::actor::Actor;
use crate::error::Fields;

/// Values of parameters by name.
pub type Values = BTreeMap<String, String>;

/// The longest value of a parameter, in characters.
const VALUE: usize = 1000;

/// All tasks by name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "File")]
pub struct Tasks(BTreeMap<String, Task>);

/// A program that may be started.
#[derive(Debug, Clone)]
pub struct Task {
    pub about: String,
    /// The program and its words; `{name}` stands for a parameter's value.
    pub argv: Vec<String>,
    pub time_limit: Duration,
    pub allow: Allow,
    pub parameters: BTreeMap<String, Parameter>,
    /// Whether it may be run again after its runner died in the middle of it.
    pub repeatable: bool,
    /// Exit statuses that are worth another try, and how many of those.
    pub retry_on: Vec<i32>,
    pub retries: u32,
    /// Absent: a time that doubles with each try.
    pub retry_after: Option<Duration>,
}

/// Who may start a task; admins always may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allow {
    Admins,
    Everyone,
    Users(Vec<String>),
}

/// What a value may be.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    #[serde(default)]
    pub about: String,
    /// Used where none is given; without one the parameter is required.
    pub default: Option<String>,
    /// The only values that are accepted.
    pub choices: Option<Vec<String>>,
    #[serde(default = "value_length")]
    pub max_length: usize,
}

fn value_length() -> usize {
    VALUE
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    tasks: BTreeMap<String, Written>,
}

/// A task as it is written down.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    about: String,
    argv: Vec<String>,
    #[serde(default = "an_hour")]
    time_limit_seconds: u64,
    #[serde(default)]
    allow: WrittenAllow,
    #[serde(default)]
    parameters: BTreeMap<String, Parameter>,
    #[serde(default)]
    repeatable: bool,
    #[serde(default)]
    retry_on: Vec<i32>,
    #[serde(default = "three")]
    retries: u32,
    retry_after_seconds: Option<u64>,
}

fn an_hour() -> u64 {
    3600
}

fn three() -> u32 {
    3
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenAllow {
    Word(String),
    Users(Vec<String>),
}

impl Default for WrittenAllow {
    fn default() -> Self {
        Self::Word("admins".to_owned())
    }
}

impl TryFrom<File> for Tasks {
    type Error = String;

    fn try_from(file: File) -> Result<Self, String> {
        let mut tasks = BTreeMap::new();
        for (name, written) in file.tasks {
            let task = Task::try_from(written).map_err(|why| format!("task `{name}`: {why}"))?;
            if !is_name(&name) {
                return Err(format!("task `{name}`: use letters, digits, `-` and `_`"));
            }
            tasks.insert(name, task);
        }
        Ok(Self(tasks))
    }
}

impl TryFrom<Written> for Task {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let allow = match written.allow {
            WrittenAllow::Users(users) => Allow::Users(users),
            WrittenAllow::Word(word) => match word.as_str() {
                "admins" => Allow::Admins,
                "everyone" => Allow::Everyone,
                _ => {
                    return Err(format!(
                        "allow must be `admins`, `everyone` or a list of users; it is `{word}`"
                    ));
                }
            },
        };
        let task = Self {
            about: written.about,
            argv: written.argv,
            time_limit: Duration::from_secs(written.time_limit_seconds.max(1)),
            allow,
            parameters: written.parameters,
            repeatable: written.repeatable,
            retry_on: written.retry_on,
            retries: written.retries,
            retry_after: written.retry_after_seconds.map(Duration::from_secs),
        };
        task.check()?;
        Ok(task)
    }
}

impl Task {
    fn check(&self) -> Result<(), String> {
        let program = self.argv.first().ok_or("argv must name a program")?;
        if !program.starts_with('/') || program.contains('{') {
            return Err(format!(
                "the program must be a path that begins with `/` and has no parameter; it is `{program}`"
            ));
        }
        if let Some(name) = self.parameters.keys().find(|name| !is_name(name)) {
            return Err(format!(
                "parameter `{name}`: use letters, digits, `-` and `_`"
            ));
        }
        let mut used = Vec::new();
        for word in &self.argv[1..] {
            for part in parts(word)? {
                if let Part::Parameter(name) = part {
                    if !self.parameters.contains_key(name) {
                        return Err(format!("argv uses `{{{name}}}`, which is no parameter"));
                    }
                    used.push(name);
                }
            }
        }
        if let Some(name) = self
            .parameters
            .keys()
            .find(|name| !used.contains(&name.as_str()))
        {
            return Err(format!("argv does not use the parameter `{name}`"));
        }
        for (name, parameter) in &self.parameters {
            if let Some(default) = &parameter.default {
                self.value(name, parameter, default)
                    .map_err(|why| format!("default of parameter `{name}`: {why}"))?;
            }
        }
        Ok(())
    }

    /// Whether the actor may start it.
    #[must_use]
    pub fn allows(&self, actor: &Actor) -> bool {
        actor.admin
            || match &self.allow {
                Allow::Admins => false,
                Allow::Everyone => true,
                Allow::Users(users) => users.contains(&actor.username),
            }
    }

    /// The program's words with the values in them.
    pub fn words(&self, given: &Values) -> Result<Vec<String>, Fields> {
        let mut problems = Fields::default();
        let mut told = Vec::new();
        if let Some(name) = given
            .keys()
            .find(|name| !self.parameters.contains_key(*name))
        {
            let known: Vec<&str> = self.parameters.keys().map(String::as_str).collect();
            told.push(if known.is_empty() {
                format!("`{name}` is no parameter of this task; it has none.")
            } else {
                format!(
                    "`{name}` is no parameter of this task; it has {}.",
                    known.join(", ")
                )
            });
        }
        let mut values = BTreeMap::new();
        for (name, parameter) in &self.parameters {
            let Some(value) = given.get(name).or(parameter.default.as_ref()) else {
                told.push(format!("`{name}` is required."));
                continue;
            };
            match self.value(name, parameter, value) {
                Ok(()) => drop(values.insert(name.as_str(), value.as_str())),
                Err(why) => told.push(format!("`{name}` {why}.")),
            }
        }
        if !told.is_empty() {
            problems.add("parameters", told.join(" "));
            return Err(problems);
        }
        let fill = |word: &String| {
            let parts = parts(word).unwrap_or_default();
            let filled = parts.into_iter().map(|part| match part {
                Part::Text(text) => text,
                Part::Parameter(name) => values.get(name).copied().unwrap_or_default(),
            });
            filled.collect::<String>()
        };
        Ok(self.argv.iter().map(fill).collect())
    }

    fn value(&self, name: &str, parameter: &Parameter, value: &str) -> Result<(), String> {
        if let Some(choices) = &parameter.choices {
            return if choices.iter().any(|choice| choice == value) {
                Ok(())
            } else {
                Err(format!("must be one of {}", choices.join(", ")))
            };
        }
        if value.chars().count() > parameter.max_length {
            return Err(format!(
                "must have {} characters at most",
                parameter.max_length
            ));
        }
        if value.chars().any(|c| c.is_control()) {
            return Err("must have no control characters".to_owned());
        }
        let begins = format!("{{{name}}}");
        if value.starts_with('-') && self.argv.iter().any(|word| word.starts_with(&begins)) {
            return Err(
                "must not begin with `-`, since the program would take it for an option".to_owned(),
            );
        }
        Ok(())
    }
}

impl Tasks {
    /// The tasks of a file in TOML.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Task> {
        self.0.get(name)
    }

    /// Those that the actor may start, by name.
    pub fn allowed<'a>(&'a self, actor: &'a Actor) -> impl Iterator<Item = (&'a str, &'a Task)> {
        let allowed = self.0.iter().filter(|(_, task)| task.allows(actor));
        allowed.map(|(name, task)| (name.as_str(), task))
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

enum Part<'a> {
    Text(&'a str),
    Parameter(&'a str),
}

/// `{name}` is a parameter, `{{` and `}}` are braces.
fn parts(word: &str) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    let mut rest = word;
    while let Some(at) = rest.find(['{', '}']) {
        parts.push(Part::Text(&rest[..at]));
        let brace = &rest[at..=at];
        let after = &rest[at + 1..];
        if after.starts_with(brace) {
            parts.push(Part::Text(brace));
            rest = &after[1..];
            continue;
        }
        let unmatched = || {
            format!(
                "`{word}` has a single brace: `{{name}}` is a parameter, `{{{{` stands for a brace"
            )
        };
        if brace == "}" {
            return Err(unmatched());
        }
        let (name, more) = after.split_once('}').ok_or_else(unmatched)?;
        parts.push(Part::Parameter(name));
        rest = more;
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        [tasks.greet]
        about = "Says hello"
        argv = ["/bin/echo", "hello {who}", "{{literal}}", "--to={who}", "{mood}"]
        allow = ["alice"]
        retry_on = [75]

        [tasks.greet.parameters.who]
        max_length = 12

        [tasks.greet.parameters.mood]
        default = "well"
    "#;

    fn values(pairs: &[(&str, &str)]) -> Values {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn values_go_into_words_and_never_make_new_ones() {
        let tasks = Tasks::parse(FILE).unwrap();
        let task = tasks.get("greet").unwrap();
        let words = task.words(&values(&[("who", "a; $(c) {d}")])).unwrap();
        assert_eq!(
            words,
            [
                "/bin/echo",
                "hello a; $(c) {d}",
                "{literal}",
                "--to=a; $(c) {d}",
                "well"
            ]
        );
    }

    #[test]
    fn values_that_do_not_fit_are_told_all_at_once() {
        let tasks = Tasks::parse(FILE).unwrap();
        let task = tasks.get("greet").unwrap();
        for (given, told) in [
            (values(&[]), "`who` is required."),
            (
                values(&[("who", "x"), ("other", "y")]),
                "`other` is no parameter of this task; it has mood, who.",
            ),
            (
                values(&[("who", "far too long a name")]),
                "12 characters at most",
            ),
            (values(&[("who", "a\nb")]), "no control characters"),
            (
                values(&[("who", "x"), ("mood", "-n")]),
                "must not begin with `-`",
            ),
        ] {
            let problem = task.words(&given).unwrap_err().to_string();
            assert!(problem.contains(told), "{problem}");
        }
        // Within a word it is no option.
        assert!(task.words(&values(&[("who", "-n")])).is_ok());
    }

    #[test]
    fn who_may_start_it() {
        let tasks = Tasks::parse(FILE).unwrap();
        let names = |actor: &Actor| tasks.allowed(actor).count();
        assert_eq!(names(&Actor::new("alice", false)), 1);
        assert_eq!(names(&Actor::new("Alice", false)), 0);
        assert_eq!(names(&Actor::new("root", true)), 1);
    }

    #[test]
    fn a_file_with_a_mistake_is_refused_with_its_place() {
        for (text, told) in [
            ("[tasks.x]\nargv = []", "argv must name a program"),
            ("[tasks.x]\nargv = [\"echo\"]", "begins with `/`"),
            (
                "[tasks.x]\nargv = [\"/bin/echo\", \"{y}\"]",
                "`{y}`, which is no parameter",
            ),
            ("[tasks.x]\nargv = [\"/bin/echo\", \"{y\"]", "single brace"),
            (
                "[tasks.x]\nargv = [\"/bin/echo\"]\n[tasks.x.parameters.y]",
                "does not use the parameter `y`",
            ),
            (
                "[tasks.x]\nargv = [\"/bin/echo\"]\nallow = \"all\"",
                "`admins`, `everyone`",
            ),
            (
                "[tasks.x]\nargv = [\"/bin/echo\"]\ntimelimit = 3",
                "unknown field `timelimit`",
            ),
            ("[tasks.\"a b\"]\nargv = [\"/bin/echo\"]", "letters, digits"),
        ] {
            let problem = Tasks::parse(text).unwrap_err();
            assert!(problem.contains(told), "{text}: {problem}");
        }
    }
}
