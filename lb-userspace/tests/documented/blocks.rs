//! What is code in a text in Markdown.

/// Code.
#[derive(Debug, PartialEq, Eq)]
pub enum Code {
    /// Lines that are indented by four columns, or between fences: the language that the fence names, the lines, and the first one's number.
    Block { language: String, lines: Vec<String>, line: usize },
    /// Between backquotes, with its line's number.
    Inline { text: String, line: usize },
}

/// All of it, in order of lines.
pub fn code(text: &str) -> Vec<Code> {
    let mut all = Vec::new();
    let mut block: Option<(String, Vec<String>, usize)> = None;
    let (mut fenced, mut after_blank) = (false, true);
    let mut prose: Vec<(usize, &str)> = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        if let Some(language) = text.trim_start().strip_prefix("```") {
            fenced = !fenced;
            all.extend(end(&mut block));
            block = fenced.then(|| (language.to_string(), Vec::new(), line + 1));
        } else if fenced {
            block.as_mut().expect("it has begun").1.push(text.to_string());
        } else if text.is_empty() {
            if let Some((_, lines, _)) = &mut block {
                lines.push(String::new());
            }
            after_blank = true;
        } else if let Some(text) = text.strip_prefix("    ").filter(|_| block.is_some() || after_blank) {
            let (_, lines, _) = block.get_or_insert_with(|| (String::new(), Vec::new(), line));
            lines.push(text.to_string());
        } else {
            all.extend(end(&mut block));
            after_blank = false;
            prose.push((line, text));
        }
    }
    assert!(!fenced, "a fence isn't closed");
    all.extend(end(&mut block));
    all.extend(inline(&prose));
    all
}

fn end(block: &mut Option<(String, Vec<String>, usize)>) -> Option<Code> {
    block.take().map(|(language, lines, line)| Code::Block { language, lines, line })
}

/// Code between backquotes, which may go on in the next line.
fn inline(prose: &[(usize, &str)]) -> Vec<Code> {
    let mut all = Vec::new();
    let mut open: Option<(usize, String)> = None;
    let mut before = 0;
    for (line, text) in prose {
        // No code goes over the end of a paragraph or a row.
        if line - before > 1 || text.starts_with('|') {
            open = None;
        }
        before = *line;
        for (n, part) in text.split('`').enumerate() {
            match (&mut open, n) {
                (Some((_, code)), 0) => code.extend([" ", part.trim()]),
                (None, 0) => {}
                (Some(_), _) => {
                    let (line, text) = open.take().expect("it is open");
                    all.push(Code::Inline { text, line });
                }
                (None, _) => open = Some((*line, part.to_string())),
            }
        }
    }
    all
}

#[test]
fn code_is_found() {
    let text = "\
a `b c` and `d
  e` f

    one
      two

    three
- item
    goes on

```sh
four
```
";
    let block = |language: &str, lines: &[&str], line| Code::Block {
        language: language.into(),
        lines: lines.iter().map(|line| line.to_string()).collect(),
        line,
    };
    let span = |text: &str, line| Code::Inline { text: text.into(), line };
    let want = [
        block("", &["one", "  two", "", "three"], 4),
        block("sh", &["four"], 12),
        span("b c", 1),
        span("d e", 1),
    ];
    assert_eq!(code(text), want);
}
