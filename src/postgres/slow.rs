//! The slow path of a push: parts between savepoints, halved until a refused row stands alone, and at the
//! end the rows that only a unique value keeps out.

use super::collision::{self, Settled};
use super::push::{Done, Plan};
use super::rival::Rivals;
use super::session::Session;
use crate::error::{Disposition, Error, Result};
use crate::model::Key;
use crate::remote::{Outcome, Refusal};

/// The slow path under way.
pub struct Slow<'a> {
    /// The open transaction.
    pub session: &'a Session,
    /// The workspace.
    pub schema: &'a str,
    /// The batch.
    pub plan: &'a Plan<'a>,
    /// What became of each item, as far as it is known.
    pub outcomes: &'a mut Vec<Option<Outcome>>,
    /// Conflicts recorded.
    pub conflicts: u32,
}

impl Slow<'_> {
    /// Applies everything, in parts that are halved until a refused row stands alone. What a unique value
    /// kept out is tried again behind all the others, for one of them may have freed it.
    pub async fn bisect(&mut self) -> Result<()> {
        let plan = self.plan;
        let mut taken: Vec<usize> = Vec::new();
        // The next part last.
        let mut parts: Vec<&[usize]> = vec![&plan.order];
        while let Some(part) = parts.pop() {
            let Some(e) = self.part(part, None).await? else {
                continue;
            };
            if let [i] = part {
                if e.sqlstate.as_deref() == Some("23505") {
                    taken.push(*i);
                }
                self.outcomes[*i] = Some(Outcome::Refused(refusal(e)));
            } else {
                let (first, second) = part.split_at(part.len() / 2);
                parts.push(second);
                parts.push(first);
            }
        }
        if taken.len() > 1 && self.part(&taken, None).await?.is_none() {
            return Ok(());
        }
        loop {
            let before = taken.len();
            let mut still = Vec::new();
            for i in taken {
                if self.part(&[i], None).await?.is_some() {
                    still.push(i);
                }
            }
            taken = still;
            if taken.is_empty() || taken.len() == before {
                break;
            }
        }
        // One that is decided may settle others that waited for it.
        loop {
            let before = taken.len();
            let mut still = Vec::new();
            for (n, &i) in taken.iter().enumerate() {
                let waiting = || still.iter().chain(&taken[n + 1..]);
                let unsettled: Vec<&Key> = waiting()
                    .map(|i: &usize| &plan.batch.items[*i].key)
                    .collect();
                let undecided = plan.batch.items[i].settle.is_none()
                    || self.part(&[i], Some(&unsettled)).await?.is_some();
                if undecided {
                    still.push(i);
                }
            }
            taken = still;
            if taken.is_empty() || taken.len() == before {
                return Ok(());
            }
        }
    }

    /// Applies a part between savepoints; the refusal of a row in it, where there is one. With `settle` the
    /// unique values of its one row are decided first, unless one of the rows named there holds them.
    async fn part(&mut self, part: &[usize], settle: Option<&[&Key]>) -> Result<Option<Error>> {
        if part.is_empty() {
            return Ok(None);
        }
        self.session
            .batch("savepoint tidewater_part", "sending a batch")
            .await?;
        match attempt(self.session, self.schema, self.plan, part, settle).await {
            Ok(done) => {
                self.session
                    .batch(
                        "release savepoint tidewater_part; set constraints all deferred",
                        "sending a batch",
                    )
                    .await?;
                self.conflicts += done.conflicts;
                for (i, outcome) in done.outcomes {
                    self.outcomes[i] = Some(outcome);
                }
                Ok(None)
            }
            Err(e) => {
                // A code of the user's own functions is nobody's business but the row's.
                let Some(Disposition::Row | Disposition::RowLater | Disposition::Unknown) =
                    e.disposition
                else {
                    return Err(e);
                };
                self.session
                    .batch(
                        "rollback to savepoint tidewater_part; release savepoint tidewater_part; \
                         set constraints all deferred",
                        "sending a batch",
                    )
                    .await?;
                Ok(Some(e))
            }
        }
    }
}

/// What the server said about one row.
fn refusal(e: Error) -> Refusal {
    Refusal {
        later: e.disposition != Some(Disposition::Row),
        sqlstate: e.sqlstate.unwrap_or_default(),
        message: e.message.trim_start_matches("sending a batch: ").to_owned(),
    }
}

async fn attempt(
    session: &Session,
    schema: &str,
    plan: &Plan<'_>,
    part: &[usize],
    settle: Option<&[&Key]>,
) -> Result<Done> {
    let mut done = Done::default();
    for group in plan.groups(part)? {
        let rivals = Rivals {
            session,
            schema,
            batch: plan.batch,
            group: &group,
        };
        if let (Some(unsettled), Some(i)) = (settle, group.members.first()) {
            match collision::settle(&rivals, &plan.batch.items[*i], unsettled).await? {
                Settled::NotNow => {}
                Settled::Lost(conflicts) => {
                    done.conflicts += conflicts;
                    done.outcomes.push((*i, Outcome::Collided));
                    continue;
                }
                Settled::Free(conflicts) => done.conflicts += conflicts,
            }
        }
        rivals.apply(&mut done).await?;
    }
    // 23505 of a deferred constraint must arise here, inside the savepoint.
    session
        .batch("set constraints all immediate", "sending a batch")
        .await?;
    Ok(done)
}
