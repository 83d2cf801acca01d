//! `.env` files as the original read them (Node's dotenv): no `$` is expanded, blanks need no quotes, `#` begins a comment
//! outside quotes. The Rust crates for such files expand `$`, which would change passwords without a word.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

/// The variables of a file; an error names the line that is none.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let text = Zeroizing::new(text.trim_start_matches('\u{feff}').replace("\r\n", "\n"));
    let mut vars = BTreeMap::new();
    let mut rest = text.as_str();
    let mut number = 1;
    while !rest.is_empty() {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let content = line.trim();
        if content.is_empty() || content.starts_with('#') {
            rest = after;
            number += 1;
            continue;
        }
        let (name, value, used) = variable(rest)
            .ok_or_else(|| format!("line {number} must look like NAME=value, it is `{content}`"))?;
        vars.insert(name, value);
        number += rest[..used].matches('\n').count();
        rest = &rest[used..];
    }
    Ok(vars)
}

/// Name, value, and how many bytes they take with the line's end; a quoted value may go over several lines.
fn variable(text: &str) -> Option<(String, String, usize)> {
    let line_end = text.find('\n').map_or(text.len(), |at| at + 1);
    let equals = text[..line_end].find('=')?;
    let name = text[..equals].trim();
    let name = name.strip_prefix("export ").unwrap_or(name).trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.is_empty() || !name.chars().all(fits) {
        return None;
    }
    let start = equals + 1;
    let value = text[start..line_end].trim_start_matches([' ', '\t']);
    let offset = line_end - value.len();
    if let Some(quote) = value.chars().next().filter(|c| "'\"`".contains(*c))
        && let Some(end) = closing(&text[offset + 1..], quote)
    {
        let inner = &text[offset + 1..offset + 1 + end];
        let value = if quote == '"' {
            inner.replace("\\n", "\n").replace("\\r", "\r")
        } else {
            inner.to_owned()
        };
        let after = offset + 1 + end + 1;
        let used = text[after..]
            .find('\n')
            .map_or(text.len(), |at| after + at + 1);
        return Some((name.to_owned(), value, used));
    }
    let value = value.split('#').next().unwrap_or_default().trim();
    Some((name.to_owned(), value.to_owned(), line_end))
}

/// Where the quote ends that is not escaped.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if c == quote && !escaped {
            return Some(at);
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_mean_what_they_meant_to_the_original() {
        let text = "# Database\nMYSQL_HOST=localhost\nMYSQL_PASSWORD=pa$$wo$rd \nexport A = two words # a comment\n\
                    B='single # ${x}'\nC=\"line\\none\"\r\nD=`a'b\"c`\nE=\nF=\"over\ntwo lines\"\n\nG=a=b\nH='unclosed";
        let vars = parse(text).unwrap();
        for (name, value) in [
            ("MYSQL_HOST", "localhost"),
            ("MYSQL_PASSWORD", "pa$$wo$rd"),
            ("A", "two words"),
            ("B", "single # ${x}"),
            ("C", "line\none"),
            ("D", "a'b\"c"),
            ("E", ""),
            ("F", "over\ntwo lines"),
            ("G", "a=b"),
            ("H", "'unclosed"),
        ] {
            assert_eq!(vars.get(name).map(String::as_str), Some(value), "{name}");
        }
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let error = parse("A='1\n2'\n\nnonsense here\n").unwrap_err();
        assert!(
            error.starts_with("line 4 ") && error.contains("nonsense here"),
            "{error}"
        );
        assert!(parse("=x").is_err() && parse("a b=c").is_err());
    }
}
