//! Promise: docs/first-hour.md, followed to the letter, shows what it says it shows.

use std::{
    fs::read_to_string,
    process::{Command, Stdio},
};

use flowpin_tests::harness::{agent::binary, paths::workspace};

/// A page's parts: what is typed, what files are to have, and what is seen.
#[derive(Default)]
struct Page {
    script: String,
    seen: Vec<String>,
}

/// Code is indented by four columns; what is seen is between fences. A paragraph that ends with a file's name says what the next code is.
fn read(text: &str) -> Page {
    let mut page = Page::default();
    let (mut fenced, mut file, mut in_code) = (false, None, false);
    for line in text.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            page.seen.push(line.into());
        } else if let Some(code) = line.strip_prefix("    ") {
            if !std::mem::replace(&mut in_code, true)
                && let Some(name) = &file
            {
                page.script += &format!("cat >{name} <<'END'\n");
            }
            page.script.extend([code, "\n"]);
        } else if line.is_empty() {
            page.script.push('\n');
        } else {
            if std::mem::take(&mut in_code) && file.take().is_some() {
                page.script += "END\n";
            }
            let name = line.strip_prefix('`').and_then(|rest| rest.split_once('`'));
            let name = name.filter(|(name, _)| ["first.toml", "haproxy.cfg"].contains(name));
            file = name.map(|(name, _)| name.to_string()).or(file);
        }
    }
    page
}

/// A line without what differs from run to run and from kernel to kernel: how long ago, how wide columns are. `None`: all of it does.
fn steady(line: &str) -> Option<String> {
    if line.trim().is_empty() || line.starts_with("Kernel:") || line.starts_with("Conntrack:") {
        return None;
    }
    let is_time = |word: &str| {
        let word = word.trim_matches(['(', ')']);
        word.ends_with('s')
            && word.bytes().all(|b| b.is_ascii_digit() || b"dhms".contains(&b))
            && word.len() > 1
    };
    let words = line.split_whitespace().map(|word| match word {
        "tcx" | "clsact" => "MODE",
        word if is_time(word) => "TIME",
        word => word,
    });
    Some(words.collect::<Vec<_>>().join(" "))
}

/// In namespaces of its own nothing of it is left, however it ends.
const AROUND: &str = "mkdir -p /run/netns; mount -t tmpfs none /run/netns; mount -t bpf none /sys/fs/bpf; \
     mount -t tmpfs none /tmp; cd /tmp; ";

#[test]
fn the_page_can_be_followed() {
    let page = read(&read_to_string(workspace().join("docs/first-hour.md")).expect("the page"));
    assert!(page.script.matches("END\n").count() == 2 && page.seen.len() > 30, "{}", page.script);
    let binary = binary().canonicalize().expect("the binary");
    let path =
        format!("{}:{}", binary.parent().expect("a folder").display(), std::env::var("PATH").expect("PATH"));
    let out = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c"])
        .arg(AROUND.to_string() + &page.script)
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&out.stdout);
    let errors = String::from_utf8_lossy(&out.stderr);
    let mut lines = said.lines().filter_map(steady);
    for wanted in page.seen.iter().filter_map(|line| steady(line)) {
        assert!(lines.any(|line| line == wanted), "{wanted:?} isn't seen in:\n{said}\n{errors}");
    }
}
