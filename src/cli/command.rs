//! One arm for each command: configuration, operation, output, exit code.

use super::args::{Cli, Command, ConflictsCommand, DevicesCommand, Global, QueueCommand};
use super::output::Output;
use super::{FOUND, INTERRUPTED, demo, manual, notify, progress, render, signal, watch};
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::http;
use crate::report::{DryRunReport, InitReport, ItemResult, ResultsReport, Statement, Time};
use crate::sync::ops::{self, InitOptions, InitOutcome, NowOptions, QueueFilter};
use std::future::Future;
use tokio::runtime::Runtime;

/// What a newcomer does after `init`.
const NEXT: &str = "`tidewater now` syncs once; `tidewater run` keeps both sides in step";

/// Commands without I/O to wait for run here, without a runtime and with the default signal handling.
pub(crate) fn execute(cli: Cli, output: &Output) -> Result<u8> {
    if let Command::Clone { file } = &cli.command {
        let global = cli.global.clone();
        let bar = progress::new(&cli.global);
        return foreground(async {
            let report =
                ops::clone(global.config, global.remote, global.schema, file, &*bar).await?;
            output.summary(&report, |r, p| render::init(r, "Cloned", p));
            Ok(0)
        });
    }
    match cli.command {
        Command::Demo { keep } => return foreground(demo::run(keep, output)),
        Command::Completions { shell } => {
            manual::completions(shell, output);
            return Ok(0);
        }
        Command::Man => return manual::man(output).map(|()| 0),
        _ => {}
    }
    let config = Config::load(&cli.overrides())?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    match cli.command {
        Command::Status {
            table,
            key,
            watch: true,
        } => return foreground(watch::status(&config, table.as_deref(), &key, output)),
        Command::Status {
            table: Some(table),
            key,
            ..
        } => {
            let report = ops::row_status(&config, &table, &key)?;
            output.answer(&report, |r, p| render::row_status(r, Time::now(), p));
        }
        Command::Queue {
            what: Some(QueueCommand::Show { key }),
            ..
        } => {
            let report = ops::queue_detail(&config, &key)?;
            output.answer(&report, |r, p| render::queue_detail(r, Time::now(), p));
        }
        Command::Queue {
            errors,
            limit,
            inbox,
            ready,
            what: None,
        } => {
            let filter = QueueFilter {
                errors,
                ready,
                limit: limit as usize,
            };
            if inbox {
                let report = ops::inbox(&config, &filter)?;
                output.answer(&report, |r, p| render::inbox(r, Time::now(), p));
            } else {
                let report = ops::queue(&config, &filter)?;
                output.answer(&report, |r, p| render::queue(r, Time::now(), p));
            }
        }
        Command::Now {
            push,
            pull,
            dry_run: true,
            ..
        } => {
            let report = ops::would_send(&config, push || !pull)?;
            output.answer(&report, |r, p| render::would_send(r, Time::now(), p));
        }
        Command::Explain { table, key } => {
            let report = ops::explain(&config, &table, &key)?;
            output.answer(&report, render::explain);
        }
        Command::Pause => output.summary(&ops::pause(&config)?, render::mode),
        Command::Resume => output.summary(&ops::resume(&config)?, render::mode),
        Command::Conflicts { what } => conflicts(&config, what, output)?,
        Command::Privacy => output.answer(&ops::privacy(&config)?, render::privacy),
        Command::Detach { yes } => output.summary(&ops::detach(&config, yes)?, render::detach),
        command => return wait(command, &cli.global, &config, output),
    }
    Ok(0)
}

fn conflicts(config: &Config, what: Option<ConflictsCommand>, output: &Output) -> Result<()> {
    match what {
        None => {
            let report = ops::conflicts(config)?;
            output.answer(&report, |r, p| render::conflicts(r, Time::now(), p));
        }
        Some(ConflictsCommand::Show { id }) => {
            output.answer(&ops::conflict(config, &id)?, render::conflict);
        }
        Some(ConflictsCommand::Restore { id }) => {
            output.summary(&ops::restore(config, &id)?, render::restored);
        }
        Some(ConflictsCommand::Ack { id, .. }) => {
            output.summary(&ops::acknowledge(config, &id)?, render::acknowledged);
        }
    }
    Ok(())
}

/// Commands that wait for the remote.
fn wait(command: Command, global: &Global, config: &Config, output: &Output) -> Result<u8> {
    let bar = progress::new(global);
    match command {
        Command::Run { init } => {
            let runtime = runtime()?;
            runtime.block_on(async {
                let stop = signal::listen()?;
                tokio::spawn(notify::stopping(stop.clone()));
                let systemd = notify::Systemd::new();
                http::beside(config, |monitor| {
                    ops::run(config, init, stop, &systemd, monitor)
                })
                .await
            })?;
            Ok(0)
        }
        Command::Init {
            tables,
            dry_run,
            adopt_remote,
        } => foreground(async {
            let opts = InitOptions {
                tables,
                dry_run,
                adopt_remote,
            };
            match ops::init(config, &opts, &*bar).await? {
                InitOutcome::Done(report) => initialised(&report, output),
                InitOutcome::Partly(report) => {
                    initialised(&report, output);
                    return Ok(FOUND);
                }
                InitOutcome::DryRun(statements) => {
                    let statements = statements
                        .into_iter()
                        .map(|(database, sql)| Statement { database, sql })
                        .collect();
                    output.answer(&DryRunReport { statements }, render::dry_run);
                }
            }
            Ok(0)
        }),
        Command::Now {
            push,
            pull,
            timeout,
            dry_run: _,
        } => foreground(async {
            let opts = NowOptions {
                push,
                pull,
                timeout,
            };
            let report = ops::now(config, &opts, &*bar).await?;
            output.summary(&report, render::now);
            Ok(if report.failed > 0 { FOUND } else { 0 })
        }),
        Command::Status { .. } => foreground(async {
            let report = ops::status(config).await?;
            output.answer(&report, |r, p| render::status(r, Time::now(), p));
            Ok(0)
        }),
        Command::Retry { key, force } => foreground(async {
            let report = ops::retry(config, &key, force).await?;
            output.answer(&report, render::results);
            Ok(results_code(&report))
        }),
        Command::Discard { key, .. } => foreground(async {
            let report = ops::discard(config, &key).await?;
            output.answer(&report, render::results);
            // What has not failed is never given up: then not all was done that was asked for.
            let all = report.results.iter().all(|r| r.outcome == "discarded");
            Ok(if all { 0 } else { FOUND })
        }),
        Command::Doctor => foreground(async {
            let report = ops::doctor(config, &*bar).await?;
            output.answer(&report, render::doctor);
            Ok(if report.ok { 0 } else { FOUND })
        }),
        Command::Prune {
            older_than, yes, ..
        } => foreground(async {
            let report = ops::prune(config, older_than, yes).await?;
            if report.dry_run {
                output.answer(&report, render::prune);
                return Ok(0);
            }
            output.summary(&report, render::prune);
            Ok(failed_code(&report.failed))
        }),
        Command::Verify { tables, repair } => foreground(async {
            let report = ops::verify(config, &tables, repair, &*bar).await?;
            output.answer(&report, render::verify);
            Ok(if report.identical { 0 } else { FOUND })
        }),
        Command::Provision { devices, dry_run } => foreground(async {
            if dry_run {
                let statements = ops::provision_statements(config, &devices)?
                    .into_iter()
                    .map(|sql| Statement {
                        database: "postgres".into(),
                        sql,
                    })
                    .collect();
                output.answer(&DryRunReport { statements }, render::dry_run);
            } else {
                let report = ops::provision(config, &devices).await?;
                // Not a summary: `-q` must not swallow what is told only once.
                output.answer(&report, render::provisioned);
            }
            Ok(0)
        }),
        Command::Devices { what } => foreground(async {
            match what {
                None => {
                    let report = ops::devices(config).await?;
                    output.answer(&report, |r, p| render::devices(r, Time::now(), p));
                }
                Some(DevicesCommand::Retire { id }) => {
                    output.summary(&ops::retire(config, &id).await?, render::retired);
                }
                Some(DevicesCommand::Revoke { id }) => {
                    output.summary(&ops::revoke(config, &id).await?, render::revoked);
                }
            }
            Ok(0)
        }),
        // Only reached where a command has no arm above; it is refused like any other unknown one.
        _ => Err(Error::new(
            Code::Configuration,
            "the command is not supported by this version yet",
            "see `tidewater help`",
        )),
    }
}

fn initialised(report: &InitReport, output: &Output) {
    output.summary(report, |r, p| {
        let done = render::init(r, "Initialised", p);
        format!("{}\n\n  {NEXT}\n", done.trim_end())
    });
}

fn results_code(report: &ResultsReport) -> u8 {
    failed_code(&report.results)
}

fn failed_code(results: &[ItemResult]) -> u8 {
    let failed = results.iter().any(|r| r.outcome == "failed");
    if failed { FOUND } else { 0 }
}

/// Runs a command until it is done or a signal ends it.
fn foreground(command: impl Future<Output = Result<u8>>) -> Result<u8> {
    let runtime = runtime()?;
    let code = runtime.block_on(async {
        let stop = signal::listen()?;
        tokio::select! {
            code = command => code,
            () = stop.cancelled() => Ok(INTERRUPTED),
        }
    });
    // What still blocks a thread (a busy file) must not hold back the exit.
    runtime.shutdown_background();
    code
}

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| {
            Error::new(
                Code::Configuration,
                format!("the runtime cannot be started: {e}"),
                "check the limits that this process runs under",
            )
        })
}
