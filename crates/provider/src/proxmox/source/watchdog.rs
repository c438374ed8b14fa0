//! What a node does by itself after a while, should whoever asked for it die meanwhile.

use crate::Error;
use crate::proxmox::ssh::{Shell, quote};

/// How often the node tries, with a second between, and later ten: an hour in all, since a guest that stands still is worse than
/// what is tried in vain.
const TRIES: u32 = 400;
const QUICK_TRIES: u32 = 60;

/// A part of a watchdog's command: ends the ssh connection that the watchdog was set by, where it is still there.
///
/// A machine that loses its power does not close it, and sshd waits on for hours, with a VM's monitor in its hands that serves one
/// client at a time.
pub(super) const HANG_UP: &str =
    "if [ \"$(cut -d' ' -f2,22 /proc/$session/stat 2>/dev/null)\" = \"$since\" ]; then kill $session 2>/dev/null; fi";

/// Has the node run a command of `sh` after so many seconds, and again until it succeeds, unless `mark`, a file that is made
/// for it, is gone by then.
pub(super) async fn set(shell: &Shell, mark: &str, seconds: u32, command: &str, object: &str) -> Result<(), Error> {
    let script = script(mark, seconds, command);
    shell.run(&script, "watch over", object).await.map(drop)
}

fn script(mark: &str, seconds: u32, command: &str) -> String {
    let mark = quote(mark);
    let watchdog = format!(
        "n=0; while [ -e {mark} ] && [ $n -lt {seconds} ]; do sleep 1; n=$((n + 1)); done\n\
         n=0; while [ -e {mark} ] && [ $n -lt {TRIES} ]; do\n\
         if {command}; then rm -f {mark}; exit; fi\n\
         if [ $n -lt {QUICK_TRIES} ]; then sleep 1; else sleep 10; fi; n=$((n + 1)); done\n\
         rm -f {mark}"
    );
    // The parent of this shell is the sshd of its connection; of no other is there a name and a moment of birth like that.
    format!(
        ": >{mark}\nsession=; since=\n\
         case $(cat /proc/$PPID/comm) in sshd*) session=$PPID; since=$(cut -d' ' -f2,22 /proc/$PPID/stat) ;; esac\n\
         export session since\n\
         setsid sh -c {} </dev/null >/dev/null 2>&1 &\n",
        quote(&watchdog)
    )
}

/// Calls that off.
pub(super) async fn call_off(shell: &Shell, mark: &str, object: &str) -> Result<(), Error> {
    let script = format!("rm -f {}", quote(mark));
    shell.run(&script, "call off the watchdog of", object).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use vmferry_testkit::{poll, wait_for};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn runs(child: &mut Child) -> bool {
        child.try_wait().unwrap().is_none()
    }

    /// What sshd does: it has a shell run the script, and goes on.
    fn sshd(folder: &Path, script: &str) -> Child {
        let sshd = folder.join("sshd");
        std::fs::copy("/bin/sh", &sshd).unwrap();
        let script = format!("sh -c {}; read -r end", quote(script));
        let mut command = Command::new(sshd);
        let mut child = command.arg("-c").arg(script).stdin(Stdio::piped()).spawn().unwrap();
        assert!(runs(&mut child));
        child
    }

    #[test]
    fn a_guest_is_helped_until_it_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (mark, count) = (folder.path().join("mark"), folder.path().join("count"));
        // As when the monitor serves another client: it fails twice.
        let command = format!("echo >>{0}; [ $(wc -l <{0}) -ge 3 ]", count.display());
        let script = script(mark.to_str().unwrap(), 0, &command);
        assert!(Command::new("sh").arg("-c").arg(&script).status().unwrap().success());
        wait_for("the mark to go", LIMIT, || (!mark.exists()).then_some(()));
        assert_eq!(std::fs::read_to_string(&count).unwrap().lines().count(), 3);
    }

    #[test]
    fn whoever_holds_the_monitor_and_is_gone_is_hung_up_on() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let mut connection = sshd(
            folder.path(),
            &script(mark.to_str().unwrap(), 1, &format!("{HANG_UP}; true")),
        );
        let ended = poll(LIMIT, || (!runs(&mut connection)).then_some(()));
        let _ = connection.kill();
        assert!(ended.is_some(), "the connection is still there");
        wait_for("the mark to go", LIMIT, || (!mark.exists()).then_some(()));
    }

    #[test]
    fn what_was_called_off_does_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (mark, done) = (folder.path().join("mark"), folder.path().join("done"));
        let command = format!("{HANG_UP}; echo >{}", done.display());
        let mut connection = sshd(folder.path(), &script(mark.to_str().unwrap(), 2, &command));
        wait_for("the mark to come", LIMIT, || mark.exists().then_some(()));
        std::fs::remove_file(&mark).unwrap();
        assert!(poll(Duration::from_secs(3), || done.exists().then_some(())).is_none());
        assert!(runs(&mut connection));
        connection.kill().unwrap();
        connection.wait().unwrap();
    }
}
