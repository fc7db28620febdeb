//! PostgreSQL's wire protocol, as far as the fault proxy has to understand it: where messages end,
//! what a client asks, and which answer belongs to which request.
//!
//! A request is a simple query or a Sync; each gets one ReadyForQuery. Only a conversation without
//! TLS can be read: after the server accepts TLS everything passes unread.

use std::collections::HashMap;

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
/// Text beyond this is not looked at.
const BODY_KEPT: usize = 64 * 1024;

/// Which requests a fault is for, by their SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// A statement that is `commit` and nothing else, and was answered with the tag COMMIT.
    Commit,
    /// A statement whose text contains this, in any case, and was answered without an error.
    Contains(String),
}

impl Rule {
    fn matches(&self, sql: &str) -> bool {
        match self {
            Rule::Commit => sql
                .trim()
                .trim_end_matches(';')
                .trim_end()
                .eq_ignore_ascii_case("commit"),
            Rule::Contains(text) => sql.to_lowercase().contains(&text.to_lowercase()),
        }
    }
}

/// What the current fault wants of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// Cut before such a request reaches the server.
    pub before: Option<Rule>,
    /// Cut instead of passing on the answer to such a request.
    pub answer: Option<Rule>,
}

/// What to pass on of a chunk, and what was seen in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Passage {
    pub forward: Vec<u8>,
    /// The fault strikes now, after `forward`.
    pub cut: bool,
    pub messages: u64,
    pub requests: u64,
    pub round_trips: u64,
}

/// Both directions of one connection.
#[derive(Default)]
pub struct Conversation {
    up: Frames,
    down: Frames,
    started: bool,
    authenticated: bool,
    encrypted: bool,
    /// Negotiation requests whose one-byte answer is still to come.
    negotiations: u32,
    asked: u64,
    answered: u64,
    /// Whether an answer has come since the last request: the next request is then a new round trip.
    idle: bool,
    statements: HashMap<Vec<u8>, String>,
    /// Whether the extended request being sent executes a statement that the rule matches.
    unit_matched: bool,
    /// The request whose answer is withheld, counted from 1.
    withhold: Option<(u64, Rule)>,
    withheld: Vec<u8>,
    committed: bool,
    failed: bool,
}

impl Conversation {
    /// The client sent `chunk`. `may_strike` is asked when a fault is due, and counts it.
    pub fn up(&mut self, chunk: &[u8], wish: &Wish, may_strike: impl Fn() -> bool) -> Passage {
        let mut passage = Passage::default();
        let mut rest = chunk;
        let mut start = 0;
        while !self.encrypted && !rest.is_empty() {
            let (taken, message) = self.up.next(rest, self.started);
            rest = &rest[taken..];
            let Some((kind, body)) = message else { break };
            passage.messages += 1;
            let requests = self.asked;
            let refused = self.client_said(kind, &body, wish) && may_strike();
            passage.requests += self.asked - requests;
            if self.asked > requests && std::mem::take(&mut self.idle) {
                passage.round_trips += 1;
            }
            if refused {
                passage.cut = true;
                break;
            }
            start = chunk.len() - rest.len();
        }
        let end = if passage.cut { start } else { chunk.len() };
        passage.forward = chunk[..end].to_vec();
        passage
    }

    /// The server sent `chunk`.
    pub fn down(&mut self, chunk: &[u8], may_strike: impl Fn() -> bool) -> Passage {
        let mut passage = Passage::default();
        let mut rest = chunk;
        if self.negotiations > 0 && !rest.is_empty() {
            self.negotiations -= 1;
            self.encrypted = rest[0] != b'N';
            passage.forward.push(rest[0]);
            rest = &rest[1..];
        }
        while !self.encrypted && !rest.is_empty() {
            let withholding = self.withholds();
            let (taken, message) = self.down.next(rest, true);
            let bytes = &rest[..taken];
            rest = &rest[taken..];
            if withholding {
                self.withheld.extend_from_slice(bytes);
            } else {
                passage.forward.extend_from_slice(bytes);
            }
            let Some((kind, body)) = message else { break };
            passage.messages += 1;
            self.server_said(kind, &body);
            if kind == b'Z' {
                let committed = std::mem::take(&mut self.committed);
                let failed = std::mem::take(&mut self.failed);
                if withholding {
                    let due = self.withhold.take().is_some_and(|(_, rule)| match rule {
                        Rule::Commit => committed && !failed,
                        Rule::Contains(_) => !failed,
                    });
                    if due && may_strike() {
                        passage.cut = true;
                        return passage;
                    }
                    passage.forward.append(&mut self.withheld);
                }
            }
        }
        passage.forward.extend_from_slice(rest);
        passage
    }

    fn withholds(&self) -> bool {
        self.authenticated
            && matches!(&self.withhold, Some((request, _)) if *request == self.answered + 1)
    }

    /// Whether the fault wants this message not to reach the server.
    fn client_said(&mut self, kind: u8, body: &[u8], wish: &Wish) -> bool {
        if !self.started {
            let code = body.first_chunk().map(|c| u32::from_be_bytes(*c));
            match code {
                Some(SSL_REQUEST | GSS_REQUEST) => self.negotiations += 1,
                _ => self.started = true,
            }
            return false;
        }
        let mut texts = body.split(|byte| *byte == 0);
        let first = texts.next().unwrap_or_default();
        let second = texts.next().unwrap_or_default();
        let sql = match kind {
            b'Q' => Some(String::from_utf8_lossy(first).into_owned()),
            b'P' => {
                let text = String::from_utf8_lossy(second).into_owned();
                self.statements.insert(first.to_vec(), text);
                None
            }
            b'B' => self.statements.get(second).cloned(),
            _ => None,
        };
        let is = |rule: &Option<Rule>| match (rule, &sql) {
            (Some(rule), Some(sql)) => rule.matches(sql),
            _ => false,
        };
        let refused = is(&wish.before);
        self.unit_matched |= is(&wish.answer);
        if matches!(kind, b'Q' | b'S' | b'F') {
            self.asked += 1;
            if std::mem::take(&mut self.unit_matched)
                && let Some(rule) = &wish.answer
            {
                self.withhold = Some((self.asked, rule.clone()));
            }
        }
        refused
    }

    fn server_said(&mut self, kind: u8, body: &[u8]) {
        match kind {
            b'C' if body.starts_with(b"COMMIT\0") => self.committed = true,
            b'E' => self.failed = true,
            b'Z' => {
                self.idle = true;
                if self.authenticated {
                    self.answered += 1;
                }
                self.authenticated = true;
            }
            _ => {}
        }
    }
}

/// Finds the messages of one direction, in chunks cut anywhere.
#[derive(Default)]
struct Frames {
    head: Vec<u8>,
    body: Vec<u8>,
    left: usize,
}

impl Frames {
    /// How much of `bytes` belongs to the current message, and the message if it ends there. A message
    /// before the start of a session has no kind; it is given as 0.
    fn next(&mut self, bytes: &[u8], typed: bool) -> (usize, Option<(u8, Vec<u8>)>) {
        let head_length = if typed { 5 } else { 4 };
        let mut taken = 0;
        if self.head.len() < head_length {
            taken = (head_length - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..taken]);
            if self.head.len() < head_length {
                return (taken, None);
            }
            let length = self.head.last_chunk().map_or(4, |c| u32::from_be_bytes(*c));
            self.left = (length as usize).saturating_sub(4);
        }
        let part = self.left.min(bytes.len() - taken);
        let room = BODY_KEPT.saturating_sub(self.body.len());
        self.body
            .extend_from_slice(&bytes[taken..taken + part.min(room)]);
        self.left -= part;
        taken += part;
        if self.left > 0 {
            return (taken, None);
        }
        let kind = if typed { self.head[0] } else { 0 };
        self.head.clear();
        (taken, Some((kind, std::mem::take(&mut self.body))))
    }
}
