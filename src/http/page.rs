//! The status page: one document without scripts, pictures or links outside, that fetches itself again.
//!
//! Everything that comes from the file or the server is escaped. It shows names, codes and counts; a person
//! who wants to see rows asks the command line, on the machine itself.

use crate::metrics::{BatchSeen, Contact};
use crate::report::{Circuit, ConflictLine, Failure, Glance, TableStatus, Time};
use crate::sync::view::Picture;
use std::fmt::Write;

/// Seconds until the page fetches itself again.
const REFRESH: u32 = 5;

/// Tables listed at most; those with something to say come first.
const TABLES_MAX: usize = 100;

const STYLE: &str = include_str!("page.css");

/// The page.
pub(super) fn render(picture: &Picture) -> String {
    let mut out = String::with_capacity(8 * 1024);
    let name = match &picture.file {
        Ok(file) => file.device.name.as_str(),
        Err(_) => "",
    };
    let (tone, mode) = mode(picture);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"refresh\" content=\"{REFRESH}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{mode} · {} · tidewater</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header><h1>{}</h1><b class=\"{tone}\">{mode}</b>",
        escape(name),
        escape(name),
    );
    if let Ok(file) = &picture.file {
        let id = escape(&file.device.id);
        let _ = write!(out, "<small>device <code>{id}</code></small>");
    }
    out.push_str("</header>\n<main>\n");
    match &picture.file {
        Ok(file) => body(&mut out, picture, file),
        Err(e) => {
            let _ = write!(
                out,
                "<h2>The file cannot be read</h2>\n<ul><li><b>{}</b> {}<br><small>{}</small></li></ul>\n",
                e.code,
                escape(&e.message),
                escape(&e.remedy)
            );
            facts(&mut out, &[remote(picture)]);
        }
    }
    let _ = write!(
        out,
        "</main>\n<footer>{} · tidewater {} · <a href=\"/metrics\">metrics</a> · refreshes every {REFRESH} s</footer>\n\
         </body>\n</html>\n",
        moment(picture.now),
        env!("CARGO_PKG_VERSION"),
    );
    out
}

/// How things stand, in a word.
fn mode(picture: &Picture) -> (&'static str, &'static str) {
    match (&picture.file, &picture.seen.contact) {
        (Err(_), _) => ("bad", "file unusable"),
        (Ok(file), _) if file.paused => ("warn", "paused"),
        (Ok(_), Contact::Fine) => ("good", "online"),
        (Ok(_), Contact::Never) => ("warn", "starting"),
        (Ok(_), Contact::Failed { .. }) => ("bad", "offline"),
    }
}

fn body(out: &mut String, picture: &Picture, file: &Glance) {
    facts(
        out,
        &[
            upload(file, picture.now),
            download(file, picture.now),
            conflicts(file),
            remote(picture),
        ],
    );
    problems(out, picture, file);
    failures(out, &file.failures);
    tables(out, &file.tables);
    batches(out, &picture.seen.batches.iter().collect::<Vec<_>>());
    latest_conflicts(out, &file.latest_conflicts);
}

/// One fact: its name, tone, headline and details.
struct Fact {
    name: &'static str,
    tone: &'static str,
    head: String,
    details: Vec<String>,
}

fn facts(out: &mut String, facts: &[Fact]) {
    out.push_str("<dl>\n");
    for fact in facts {
        let _ = write!(
            out,
            "<div><dt>{}</dt><dd><b class=\"{}\">{}</b>",
            fact.name,
            fact.tone,
            escape(&fact.head)
        );
        for detail in &fact.details {
            let _ = write!(out, "<br><small>{}</small>", escape(detail));
        }
        out.push_str("</dd></div>\n");
    }
    out.push_str("</dl>\n");
}

fn upload(file: &Glance, now: Time) -> Fact {
    let u = &file.upload;
    let (tone, head) = match (u.failed, u.pending + u.uploading) {
        (0, 0) => ("good", "all sent".to_owned()),
        (0, waiting) => ("warn", format!("{waiting} waiting")),
        (failed, 0) => ("bad", format!("{failed} failed")),
        (failed, waiting) => ("bad", format!("{failed} failed, {waiting} waiting")),
    };
    let mut details = Vec::new();
    if u.uploading > 0 {
        details.push(format!("{} under way", u.uploading));
    }
    if let Some(at) = u.oldest_pending_at {
        details.push(format!("oldest written {}", age(at, now)));
    }
    details.push(format!("{} today, {} ever", u.synced_today, u.synced_total));
    details.push(last("last push", u.last_push_at, now));
    Fact {
        name: "Upload",
        tone,
        head,
        details,
    }
}

fn download(file: &Glance, now: Time) -> Fact {
    let d = &file.download;
    let (tone, head) = match (d.failed, d.pending) {
        (0, 0) => ("good", "up to date".to_owned()),
        (0, waiting) => ("warn", format!("{waiting} waiting")),
        (failed, _) => ("bad", format!("{failed} cannot be applied")),
    };
    Fact {
        name: "Download",
        tone,
        head,
        details: vec![
            format!("{} today", d.applied_today),
            last("last pull", d.last_pull_at, now),
        ],
    }
}

fn conflicts(file: &Glance) -> Fact {
    let c = &file.conflicts;
    let (tone, head) = match (c.total, c.unseen) {
        (0, _) => ("good", "none".to_owned()),
        (total, 0) => ("good", format!("{total}, all seen")),
        (total, unseen) => ("warn", format!("{unseen} unseen of {total}")),
    };
    Fact {
        name: "Conflicts",
        tone,
        head,
        details: Vec::new(),
    }
}

fn remote(picture: &Picture) -> Fact {
    let seen = &picture.seen;
    let (tone, head) = match &seen.contact {
        Contact::Never => ("warn", "no contact yet".to_owned()),
        Contact::Fine => ("good", "reachable".to_owned()),
        Contact::Failed { code, .. } => ("bad", format!("not usable ({code})")),
    };
    let mut details = vec![format!("workspace {}", picture.schema)];
    if let Some(version) = &seen.server_version {
        details.push(format!("PostgreSQL {version}"));
    }
    if let Some(latency) = seen.latency {
        details.push(format!("answers in {} ms", latency.as_millis()));
    }
    details.extend(match seen.circuit {
        Circuit::Closed => None,
        Circuit::Open => Some("waiting before the next try".to_owned()),
        Circuit::HalfOpen => Some("trying again".to_owned()),
    });
    if let Ok(file) = &picture.file
        && file.clock_offset_ms.abs() >= 1000
    {
        let way = if file.clock_offset_ms > 0 {
            "behind"
        } else {
            "ahead"
        };
        let seconds = file.clock_offset_ms.abs() / 1000;
        details.push(format!("this clock is {seconds} s {way}"));
    }
    Fact {
        name: "Server",
        tone,
        head,
        details,
    }
}

fn problems(out: &mut String, picture: &Picture, file: &Glance) {
    // What the file says of the connection is as old as its last write.
    let contact = match &picture.seen.contact {
        Contact::Failed { code, message } => Some((*code, message)),
        _ => None,
    };
    let noted = file.problems.iter().filter(|p| {
        let is_contact =
            contact.is_some_and(|(code, message)| p.code == code && p.message == *message);
        p.code != "SYNC-001" && !is_contact
    });
    let mut list = String::new();
    if let Some((code, message)) = contact {
        let _ = writeln!(
            list,
            "<li><b>{code}</b> {}<br><small>changes queue here and it is tried again</small></li>",
            escape(message)
        );
    }
    for p in noted {
        let _ = writeln!(
            list,
            "<li><b>{}</b> {}<br><small>{}</small></li>",
            escape(&p.code),
            escape(&p.message),
            escape(&p.remedy)
        );
    }
    if !list.is_empty() {
        let _ = write!(out, "<h2>Problems</h2>\n<ul>\n{list}</ul>\n");
    }
}

/// A table of the page: headings (a leading `#` is a column of numbers) and rows of cells.
fn grid(out: &mut String, title: &str, headings: &[&str], rows: &[Vec<String>]) {
    if rows.is_empty() {
        return;
    }
    let _ = write!(out, "<h2>{title}</h2>\n<div class=\"scroll\"><table>\n<tr>");
    let class = |i: usize| {
        if headings.get(i).is_some_and(|h| h.starts_with('#')) {
            " class=\"n\""
        } else {
            ""
        }
    };
    for (i, heading) in headings.iter().enumerate() {
        let heading = heading.trim_start_matches('#');
        let _ = write!(out, "<th{}>{heading}</th>", class(i));
    }
    out.push_str("</tr>\n");
    for row in rows {
        out.push_str("<tr>");
        for (i, cell) in row.iter().enumerate() {
            let _ = write!(out, "<td{}>{}</td>", class(i), escape(cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
}

fn failures(out: &mut String, failures: &[Failure]) {
    let rows: Vec<Vec<String>> = failures
        .iter()
        .map(|f| {
            vec![
                f.table.clone(),
                f.changes.to_string(),
                f.code.clone(),
                f.sqlstate.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let title = "Failed changes <small>tidewater queue --errors</small>";
    grid(
        out,
        title,
        &["table", "#changes", "code", "SQLSTATE"],
        &rows,
    );
}

fn tables(out: &mut String, tables: &[TableStatus]) {
    let mut sorted: Vec<&TableStatus> = tables.iter().collect();
    sorted.sort_by_key(|t| (t.failed == 0, t.pending == 0));
    let rows: Vec<Vec<String>> = sorted
        .iter()
        .take(TABLES_MAX)
        .map(|t| {
            vec![
                t.name.clone(),
                t.pending.to_string(),
                t.failed.to_string(),
                t.privacy.clone(),
            ]
        })
        .collect();
    let more = tables.len().saturating_sub(TABLES_MAX);
    let title = match more {
        0 => "Tables".to_owned(),
        more => format!("Tables <small>{more} more are not shown</small>"),
    };
    grid(
        out,
        &title,
        &["table", "#waiting", "#failed", "privacy"],
        &rows,
    );
}

fn batches(out: &mut String, batches: &[&BatchSeen]) {
    let rows: Vec<Vec<String>> = batches
        .iter()
        .map(|b| {
            vec![
                moment(b.at),
                b.rows.to_string(),
                b.bytes.to_string(),
                b.took.as_millis().to_string(),
                outcome(b),
            ]
        })
        .collect();
    let headings = ["at", "#changes", "#bytes", "#ms", "outcome"];
    grid(out, "Last pushes", &headings, &rows);
}

fn outcome(b: &BatchSeen) -> String {
    let parts: Vec<String> = [
        (b.uploaded, "applied"),
        (b.lost, "lost a conflict"),
        (b.later, "tried again later"),
        (b.failed, "failed"),
    ]
    .iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, what)| format!("{n} {what}"))
    .collect();
    parts.join(", ")
}

fn latest_conflicts(out: &mut String, conflicts: &[ConflictLine]) {
    let rows: Vec<Vec<String>> = conflicts
        .iter()
        .map(|c| {
            let winner = match c.winner.as_str() {
                "local" => "this device",
                _ => "the other side",
            };
            vec![
                moment(c.detected_at),
                c.table.clone(),
                c.kind.replace('_', " "),
                winner.to_owned(),
                if c.seen { "seen" } else { "unseen" }.to_owned(),
                c.id.clone(),
            ]
        })
        .collect();
    let title = "Latest conflicts <small>tidewater conflicts</small>";
    let headings = ["decided", "table", "kind", "won by", "", "id"];
    grid(out, title, &headings, &rows);
}

fn last(what: &str, at: Option<Time>, now: Time) -> String {
    match at {
        Some(at) => format!("{what} {}", age(at, now)),
        None => format!("{what}: never yet"),
    }
}

fn age(then: Time, now: Time) -> String {
    let seconds = now.ms().saturating_sub(then.ms()).max(0) / 1000;
    match seconds {
        0..=119 => format!("{seconds} s ago"),
        120..=7199 => format!("{} min ago", seconds / 60),
        7200..=172_799 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// To the second, which is enough for a person.
fn moment(at: Time) -> String {
    let text = at.to_string();
    let seconds = text.split('.').next().unwrap_or(&text);
    format!("{} UTC", seconds.replace('T', " "))
}

/// Text that means itself in HTML, in an attribute too. Control characters go: they mean nothing here.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
