//! The words of an nginx configuration, as nginx itself cuts them (`ngx_conf_read_token`). Whatever nginx might read in two ways, or
//! differently from here, is an error: cac writes none of it.

/// A directive and the block behind it, if it has one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) line: usize,
    /// At least one: the directive's name.
    pub(super) words: Vec<Word>,
    pub(super) block: Option<Vec<Directive>>,
}

impl Directive {
    pub(super) fn name(&self) -> &str {
        &self.words[0].text
    }

    pub(super) fn arguments(&self) -> &[Word] {
        &self.words[1..]
    }
}

/// A word without its quotes. What a backslash stands before stays as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) quoted: bool,
}

/// Blocks within blocks; cac needs four.
const DEEPEST: usize = 8;

/// All directives of a file, or where it cannot be read.
pub(super) fn read(text: &str) -> Result<Vec<Directive>, String> {
    let mut lexer = Lexer {
        rest: text,
        line: 1,
    };
    lexer.block(0)
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
}

enum Token {
    Word(Word),
    /// `;`
    End,
    /// `{`
    Open,
    /// `}`
    Close,
    Nothing,
}

impl Lexer<'_> {
    fn block(&mut self, depth: usize) -> Result<Vec<Directive>, String> {
        if depth > DEEPEST {
            return Err(self.error("blocks are nested too deeply"));
        }
        let mut directives = Vec::new();
        let mut words: Vec<Word> = Vec::new();
        loop {
            match (self.token()?, words.is_empty()) {
                (Token::Word(word), _) => words.push(word),
                (Token::End, false) => directives.push(Directive {
                    line: self.line,
                    words: std::mem::take(&mut words),
                    block: None,
                }),
                (Token::Open, false) => {
                    let (line, words) = (self.line, std::mem::take(&mut words));
                    directives.push(Directive {
                        line,
                        words,
                        block: Some(self.block(depth + 1)?),
                    });
                }
                (Token::Close, true) if depth > 0 => return Ok(directives),
                (Token::Nothing, true) if depth == 0 => return Ok(directives),
                _ => return Err(self.error("a directive or a block is not whole")),
            }
        }
    }

    fn error(&self, what: &str) -> String {
        format!("line {}: {what}.", self.line)
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn token(&mut self) -> Result<Token, String> {
        loop {
            let Some(c) = self.rest.chars().next() else {
                return Ok(Token::Nothing);
            };
            match c {
                ' ' | '\t' | '\n' => {
                    self.next();
                }
                '#' => {
                    let end = self.rest.find('\n').unwrap_or(self.rest.len());
                    if self.rest[..end].contains(is_unreadable) {
                        return Err(self.error("a comment has control characters"));
                    }
                    self.rest = &self.rest[end..];
                }
                ';' | '{' | '}' => {
                    self.next();
                    return Ok(match c {
                        ';' => Token::End,
                        '{' => Token::Open,
                        _ => Token::Close,
                    });
                }
                '"' | '\'' => return self.quoted(c).map(Token::Word),
                _ => return self.bare().map(Token::Word),
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Result<Word, String> {
        self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                Some(c) if c == quote => break,
                Some(c) if is_unreadable(c) || c == '\n' => {
                    return Err(self.error("a text in quotes has control characters"));
                }
                Some('\\') => {
                    let next = self.next().filter(|c| !c.is_control());
                    let next =
                        next.ok_or_else(|| self.error("a backslash stands before nothing"))?;
                    text.extend(['\\', next]);
                }
                Some(c) => text.push(c),
                None => return Err(self.error("a text in quotes does not end")),
            }
        }
        // nginx refuses anything else here.
        match self.rest.chars().next() {
            Some(' ' | '\t' | '\n' | ';' | '{' | ')') => Ok(Word { text, quoted: true }),
            _ => Err(self.error("a text in quotes is part of a longer word")),
        }
    }

    fn bare(&mut self) -> Result<Word, String> {
        let end = self.rest.find([' ', '\t', '\n', ';', '{']);
        let end = end.ok_or_else(|| self.error("the last word does not end"))?;
        let text = self.rest[..end].to_owned();
        let odd = |c: char| is_unreadable(c) || matches!(c, '"' | '\'' | '\\' | '}' | '#' | '`');
        if text.contains(odd) || text.ends_with('$') {
            return Err(self.error("a word has characters that cac writes in quotes only"));
        }
        self.rest = &self.rest[end..];
        Ok(Word {
            text,
            quoted: false,
        })
    }
}

/// Control characters, but for the end of a line; carriage returns, too, which nginx takes for blanks.
fn is_unreadable(c: char) -> bool {
    c.is_control() && c != '\n'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let read = read(text).unwrap();
        let words = read[0].words.iter().map(|word| word.text.clone());
        words.collect()
    }

    #[test]
    fn words_are_cut_as_nginx_cuts_them() {
        assert_eq!(words("a b;"), ["a", "b"]);
        assert_eq!(words("a 'b; \"c';"), ["a", "b; \"c"]);
        assert_eq!(words("a \"b\\\"c\";"), ["a", "b\\\"c"]);
        assert_eq!(
            words("if ($a = \"\") { return 404; }"),
            ["if", "($a", "=", "", ")"]
        );
        let blocks = read("# a { b\na {\n b;\n}\n").unwrap();
        let inner = blocks[0].block.as_ref().unwrap();
        assert_eq!((inner[0].name(), inner[0].line), ("b", 3));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for bad in [
            "a",
            "a b",
            "a {",
            "a; }",
            ";",
            "{ }",
            "a \"b",
            "a \"b\"c;",
            "a b\"c\";",
            "a \\;;",
            "a b}c;",
            "a b#c;",
            "a ${b};",
            "a\r;",
            "a \u{0};",
            "a 'b\nc';",
            "# \u{1}\n",
            "a $;",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        let deep = "a {".repeat(20) + &"}".repeat(20);
        assert!(read(&deep).is_err());
    }
}
