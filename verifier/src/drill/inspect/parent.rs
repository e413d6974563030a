//! The drill's side: one child for all checks that ask SQLite, killed where it outlasts its time, and begun anew for the
//! checks that are left.
//!
//! Invariants: no child outlives the inspection (killed with its process group, and waited for; a drill that is dropped kills
//! it, and so does the end of this process); what a child died of is an `error` of the check that it was making. Its answers are bounded, and
//! believed no further than that check.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::Inspector;
use super::child::{Answer, Ask, Given, SUBCOMMAND};
use super::confine::OPERATION_CPU_SECONDS;
use super::step::{Content, Findings, Step};
use crate::checks::{LATE, out_of_time};
use crate::record::{Check, Status};

/// How long after its time a check may take to notice that it has passed.
const GRACE: Duration = Duration::from_millis(500);
/// Longest answer of a child: the row counts of a schema that fills all of SQLite's memory.
const ANSWER_BYTES: u64 = 64 << 20;
/// Of this process's environment, what a program may need to be loaded at all.
const KEPT_VARIABLE: &str = "LD_LIBRARY_PATH";

/// Has a child process make the checks.
#[derive(Debug, Clone)]
pub struct ChildProcess {
    program: PathBuf,
}

impl ChildProcess {
    /// By another process of this very program, also where its file was replaced meanwhile. It must be `verifier`
    /// ([`crate::run`]), which knows what to do.
    #[must_use]
    pub fn of_this_program() -> Self {
        Self::of("/proc/self/exe".into())
    }

    /// By a process of this `verifier`.
    #[must_use]
    pub fn of(program: PathBuf) -> Self {
        Self { program }
    }
}

#[async_trait]
impl Inspector for ChildProcess {
    async fn inspect(&self, content: Content, deadline: Option<Instant>) -> Findings {
        let (mut findings, mut idle) = (Findings::default(), None);
        for step in Step::all(&content.rules) {
            let (name, began) = (step.name(&content.rules), Instant::now());
            if deadline.is_some_and(|deadline| began >= deadline) {
                findings.checks.push(out_of_time(&name));
                continue;
            }
            let mut running = match idle.take() {
                Some(running) => running,
                None => match self.start(&content) {
                    Ok(running) => running,
                    Err(error) => {
                        findings.checks.push(not_started(&name, &error));
                        continue;
                    }
                },
            };
            match running.take(step, &content, deadline).await {
                Ok(Answer::Found(found)) => {
                    findings.append(found);
                    idle = Some(running);
                }
                Ok(Answer::NotOpened(check)) => {
                    findings.checks.push(check);
                    running.end().await;
                    return findings;
                }
                Err(died) => {
                    let status = running.end().await;
                    let check = died.check(&name, status);
                    tracing::warn!(check = name, detail = check.detail, "a check was ended");
                    findings.checks.push(check);
                    findings.note_time(&name, began);
                }
            }
        }
        if let Some(running) = idle {
            running.end().await;
        }
        findings
    }
}

impl ChildProcess {
    fn start(&self, content: &Content) -> std::io::Result<Running> {
        let mut command = Command::new(&self.program);
        command
            .arg0("verifier")
            .arg(SUBCOMMAND)
            .arg(&content.copy)
            .current_dir("/")
            .env_clear()
            .envs(std::env::var_os(KEPT_VARIABLE).map(|value| (KEPT_VARIABLE, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let (asks, answers) = (child.stdin.take(), child.stdout.take().map(BufReader::new));
        let mut unsent = Vec::new();
        push_line(&mut unsent, &Given::of(content))?;
        Ok(Running { child, asks, answers, unsent })
    }
}

/// A child that waits to be asked.
#[derive(Debug)]
struct Running {
    child: Child,
    asks: Option<ChildStdin>,
    answers: Option<BufReader<ChildStdout>>,
    /// Lines that it has not been sent.
    unsent: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
enum Died {
    /// It outlasted a time of its own.
    Timeout(Duration),
    /// It outlasted the drill's deadline.
    Deadline,
    /// It ended, or said what makes no sense.
    Ended(std::io::Error),
}

impl Running {
    async fn take(
        &mut self,
        step: Step,
        content: &Content,
        deadline: Option<Instant>,
    ) -> Result<Answer, Died> {
        let now = Instant::now();
        let own = step.timeout(&content.rules);
        let end = own.and_then(|own| now.checked_add(own)).into_iter().chain(deadline).min();
        let left = deadline.map(|deadline| deadline.saturating_duration_since(now));
        let left = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        push_line(&mut self.unsent, &Ask { step, left }).map_err(Died::Ended)?;
        let answer = self.answer();
        let Some(end) = end else { return answer.await.map_err(Died::Ended) };
        match tokio::time::timeout_at((end + GRACE).into(), answer).await {
            Ok(answer) => answer.map_err(Died::Ended),
            Err(_elapsed) => Err(match own {
                Some(own) if deadline.is_none_or(|deadline| end < deadline) => Died::Timeout(own),
                _ => Died::Deadline,
            }),
        }
    }

    async fn answer(&mut self) -> std::io::Result<Answer> {
        let closed = || std::io::Error::other("its pipes are closed");
        let asks = self.asks.as_mut().ok_or_else(closed)?;
        asks.write_all(&self.unsent).await?;
        asks.flush().await?;
        self.unsent.clear();
        let answers = self.answers.as_mut().ok_or_else(closed)?;
        let mut line = Vec::new();
        answers.take(ANSWER_BYTES).read_until(b'\n', &mut line).await?;
        Ok(serde_json::from_slice(&line)?)
    }

    /// Kills it with everything that it may have begun, and waits for it. One that has died by itself keeps its reason.
    async fn end(mut self) -> Option<ExitStatus> {
        self.kill();
        self.child.wait().await.ok()
    }

    fn kill(&self) {
        // Not yet waited for, so that the number is still its own.
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(id) = id {
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Died {
    fn check(self, name: &str, status: Option<ExitStatus>) -> Check {
        use std::os::unix::process::ExitStatusExt;
        let signal = status.and_then(|status| status.signal());
        let detail = match self {
            Self::Timeout(own) => format!(
                "did not end within {} s, and was killed in one operation of SQLite's that nothing interrupts\n\
                 HINT: make the query cheaper (an index, a LIMIT, shorter values), or give it a timeout of its own in drill.toml",
                own.as_secs_f64()
            ),
            Self::Deadline => format!(
                "deadline reached, and the check was killed in one operation of SQLite's that nothing interrupts\nHINT: {LATE}"
            ),
            Self::Ended(_) if signal == Some(Signal::XCPU.as_raw()) => format!(
                "killed after {OPERATION_CPU_SECONDS} s of computing in one operation of SQLite's that nothing interrupts\n\
                 HINT: a function of a long value takes so long, in the schema of this database or in drill.toml: look who put it there"
            ),
            Self::Ended(error) => {
                let how = status.map_or_else(|| error.to_string(), |status| status.to_string());
                format!(
                    "the process that makes the checks ended in the middle of this one ({how})\n\
                     HINT: the verifier's log may say more; please report it. Until then, look at a restored copy elsewhere"
                )
            }
        };
        Check::new(name, Status::Error, detail)
    }
}

fn not_started(name: &str, error: &std::io::Error) -> Check {
    let detail = format!(
        "start the process that makes the checks: {error}\nHINT: the verifier starts itself anew for them; is /proc mounted, \
         and is there room for one more process?"
    );
    Check::new(name, Status::Error, detail)
}

fn push_line(lines: &mut Vec<u8>, line: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *lines, line)?;
    lines.push(b'\n');
    Ok(())
}
