//! The scripts that run on a node, for `sh`.
//!
//! Architecture Invariant: every word that comes from outside goes through [`quote`].

use super::super::place::{NO_STORAGE, Place};
use super::bug;
use crate::proxmox::ssh::quote;
use crate::{Error, Kind};

/// What the folder of a migration on a node begins with; its tag follows.
pub(in super::super) const FOLDER: &str = "/var/tmp/vmferry";

/// What all scripts have in common: the folder, and how a folder is made or found to be ours and nobody else's.
const COMMON: &str = r#"
set -eu
umask 077
fail() { echo "$*" >&2; exit 1; }
ours() { [ -d "$1" ] && [ ! -L "$1" ] && [ -O "$1" ]; }
private() {
    mkdir -m 700 -- "$1" 2>/dev/null || ours "$1" || fail "$1 is there and is not a folder of this user's"
    chmod 700 -- "$1"
}
room() {
    free=$(df -P -B1 -- "$1" | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$2" ] || fail "not enough free space in $1: $free bytes are free, $2 are needed"
}
"#;

/// Takes the lock of a disk, `$base.lock` in the folder `$state`. Whoever holds it is ended first, and may take the folder along.
const TAKE: &str = r#"
halt() {
    flock -n 9 && return 0
    for signal in TERM KILL; do
        pid=$(cat "$base.pid" 2>/dev/null) || pid=
        case "$pid" in
        '' | *[!0-9]*) ;;
        *) kill -s $signal -- "-$pid" 2>/dev/null || kill -s $signal "$pid" 2>/dev/null || : ;;
        esac
        flock -w 15 9 && return 0
    done
    fail "is locked (what held it does not end: see $base.pid)"
}
take() {
    for try in 1 2 3 4 5; do
        private "$state"
        exec 9>>"$base.lock"
        halt
        [ ! "$base.lock" -ef /proc/self/fd/9 ] || return 0
    done
    fail "is locked (others take it and remove it all the time: $base.lock)"
}
"#;

/// A disk of a migration, as its files on a node are called.
pub(super) struct Disk {
    /// `vmferry-0123456789ab`.
    mark: String,
    /// `vmferry-0123456789ab-disk0`.
    stem: String,
    /// `disk0`.
    short: String,
    /// Where its file is.
    storage: Option<String>,
    /// The file's name.
    image: String,
}

impl Disk {
    /// The disk of a place.
    pub fn of(place: &Place) -> Result<Self, Error> {
        let (stem, _) = place.image.rsplit_once('.').ok_or_else(|| bug(place))?;
        let (mark, _) = stem.rsplit_once('-').ok_or_else(|| bug(place))?;
        let mut disk = Self::new(stem, mark)?;
        disk.storage = (place.storage != NO_STORAGE).then(|| place.storage.clone());
        disk.image.clone_from(&place.image);
        Ok(disk)
    }

    /// A disk, wherever its file is.
    pub fn new(stem: &str, mark: &str) -> Result<Self, Error> {
        let short = stem.strip_prefix(mark).and_then(|rest| rest.strip_prefix('-'));
        let short = short.ok_or_else(|| Error::new(Kind::Bug, "name", format!("the files of {stem}")))?;
        Ok(Self {
            mark: mark.to_owned(),
            stem: stem.to_owned(),
            short: short.to_owned(),
            storage: None,
            image: String::new(),
        })
    }

    fn common(&self) -> String {
        format!(
            "{COMMON}mark={}\nstem={}\nstate={}\nbase=$state/{}\nimage={}\n",
            quote(&self.mark),
            quote(&self.stem),
            quote(&state(&self.mark)),
            quote(&self.short),
            quote(&self.image),
        )
    }

    /// Takes a file of `len` bytes from standard input.
    pub fn receive(&self, len: u64, sha256: Option<&str>) -> String {
        format!(
            r#"{common}{TAKE}take
echo $$ >"$base.pid"
part= data=$state
trap 'status=$?; [ $status -eq 0 ] || {{ [ -z "$part" ] || rm -f -- "$part"; rm -f -- "$base".*; rmdir -- "$data" "$state" 2>/dev/null; }}; exit $status' EXIT
trap 'exit 1' HUP INT TERM PIPE
{data}if [ "$data" != "$state" ]; then
    ln -sfn -- "$data" "$base.dir"
    private "$data"
fi
rm -f -- "$data/$image" "$data/$stem.part" "$base".rc-* "$base.log"
room "$data" {len}
part=$data/$stem.part
echo ready
dd of="$part" bs=1M iflag=fullblock conv=fsync status=none
size=$(stat -c %s -- "$part")
[ "$size" = {len} ] || fail "$size bytes arrived of {len}"
wanted={wanted}
if [ -n "$wanted" ]; then
    sum=$(sha256sum <"$part")
    sum=${{sum%% *}}
    [ "$sum" = "$wanted" ] || fail "checksum mismatch: got '$sum' != expect '$wanted'"
fi
mv -- "$part" "$data/$image"
sync -- "$data"
"#,
            common = self.common(),
            data = data(self.storage.as_deref()),
            wanted = quote(sha256.unwrap_or_default()),
        )
    }

    /// How far the import is: `missing` (there is no file), `idle`, `running`, or `ended CODE`; then the end of its log.
    pub fn look(&self, vmid: u64) -> String {
        format!(
            r#"{common}ours "$state" || {{ echo missing; exit 0; }}
{data}if [ -e "$base.rc-{vmid}" ]; then
    echo "ended $(cat "$base.rc-{vmid}")"
elif exec 9>>"$base.lock" && ! flock -n 9; then
    echo running
elif [ -f "$data/$image" ]; then
    echo idle
else
    echo missing
fi
[ ! -e "$base.log" ] || tail -c 2000 -- "$base.log" | tr '\r' '\n'
"#,
            common = self.common(),
            data = data(self.storage.as_deref()),
        )
    }

    /// Begins the import, which goes on by itself. What an import that was cut short left is freed: volumes of the VM that are new since the
    /// first one began and are none of `known`, those in its configuration.
    pub fn begin(&self, vmid: u64, target: &str, format: Option<&str>, known: &[&str]) -> String {
        let known: Vec<_> = known.iter().map(|volume| quote(volume)).collect();
        format!(
            r#"{common}exec 9>>"$base.lock"
flock -n 9 || exit 0
[ ! -e "$base.rc-{vmid}" ] || exit 0
{data}target={target}
# Not in a pipe, whose end would hide that it fails: nothing may look new that could not be seen.
pvesm list "$target" --vmid {vmid} >"$base.list"
awk 'NR > 1 {{ print $1 }}' "$base.list" >"$base.now"
if [ -e "$base.before-{vmid}" ]; then
    printf '%s\n' {known} >>"$base.before-{vmid}"
    while IFS= read -r volume; do
        grep -qxF -e "$volume" -- "$base.before-{vmid}" || pvesm free "$volume" >&2 </dev/null
    done <"$base.now"
else
    mv -- "$base.now" "$base.before-{vmid}"
fi
setsid sh -c 'echo $$ >"$1.pid"; base=$1; shift; qm importdisk "$@" >"$base.log" 2>&1; echo $? >"$base.rc.new"; mv -- "$base.rc.new" "$base.rc-$1"' \
    sh "$base" {vmid} "$data/$image" "$target"{format} </dev/null >/dev/null 2>&1 &
"#,
            common = self.common(),
            data = data(self.storage.as_deref()),
            target = quote(target),
            known = known.join(" "),
            format = format.map_or(String::new(), |format| format!(" --format {}", quote(format))),
        )
    }

    /// Forgets how an import ended, so that it is tried again.
    pub fn forget(&self, vmid: u64) -> String {
        format!("{}rm -f -- \"$base.rc-{vmid}\" \"$base.log\"\n", self.common())
    }

    /// Ends whatever is at it, and removes all of it; the folders, where nothing else is in them.
    pub fn remove(&self) -> String {
        format!(
            r#"{common}{TAKE}ours "$state" || exit 0
take
data=$(readlink -- "$base.dir") || data=
case "$data" in */"$mark") ;; *) data=$state ;; esac
for dir in "$data" "$state"; do
    rm -f -- "$dir/$stem.part" "$dir/$stem.qcow2" "$dir/$stem.raw" "$dir/$stem.vmdk"
done
[ "$data" = "$state" ] || rmdir -- "$data" 2>/dev/null || :
rm -f -- "$base".*
rmdir -- "$state" 2>/dev/null || :
"#,
            common = self.common(),
        )
    }
}

/// The folder of a migration.
fn state(mark: &str) -> String {
    format!("{FOLDER}{}", mark.strip_prefix("vmferry").unwrap_or(mark))
}

/// Sets `$data` to the folder of staged files: beside the folders of images of a storage, or the migration's own.
fn data(storage: Option<&str>) -> String {
    match storage {
        // Where a storage has its images says only the path of one; whether it is there is of no interest.
        Some(storage) => format!(
            "data=$(pvesm path {})\ndata=$(dirname -- \"$(dirname -- \"$data\")\")/$mark\n",
            quote(&format!("{storage}:100/vm-100-vmferry.raw"))
        ),
        None => "data=$state\n".to_owned(),
    }
}

/// Whether a node has the commands, and so many bytes free.
pub(super) fn check(storage: Option<&str>, mark: &str, needed: u64) -> String {
    format!(
        r#"{COMMON}mark={mark}
for tool in qm pvesm flock setsid sha256sum dd awk; do
    command -v $tool >/dev/null || fail "the node has no $tool, or the user may not run it"
done
state=/var/tmp
{data}[ "$data" = "$state" ] || data=$(dirname -- "$data")
room "$data" {needed}
"#,
        mark = quote(mark),
        data = data(storage),
    )
}

/// Ends whatever is at any disk of a migration.
pub(super) fn halt_all(mark: &str) -> String {
    format!(
        r#"{COMMON}{TAKE}state={}
ours "$state" || exit 0
for lock in "$state"/disk*.lock; do
    [ -e "$lock" ] || continue
    base=${{lock%.lock}}
    take
    exec 9>&-
done
"#,
        quote(&state(mark))
    )
}
