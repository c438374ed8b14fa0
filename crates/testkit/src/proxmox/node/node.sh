#!/bin/sh
# Runs the shell side of a Proxmox VE node until standard input is closed: sshd on ADDRESS:2222 whose users find `pvesm` and `qm` of ours,
# with /run of its own, where /run/qemu-server is DIR/run.
#
#   node.sh NAME DIR ADDRESS CONTROL SHARED
#
# DIR/tmp is its /var/tmp; SHARED is the folder of a storage that all have.
# CONTROL is the unix socket of the cluster's double, which does what the commands ask for. DIR has the keys in ssh/ (host_key, authorized_keys,
# shadow, made by the caller). DIR/init has the process id of the node's init as the caller sees it, DIR/ready appears when sshd answers.
# All processes live in a pid namespace whose init ends with standard input, and with it everything on the node.
set -eu

name=$1 dir=$2 address=$3 control=$4 shared=$5
PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "$0")" && pwd)
trap '' HUP INT TERM

mkdir -p "$dir/bin" "$dir/log" "$dir/home"
cat >"$dir/bin/stub" <<STUB
#!/bin/sh
# A command of Proxmox VE's, done by the double.
tool=\$(basename "\$0")
said=\$(mktemp /run/stub.XXXXXX)
status=\$(printf '%s\\0' '$name' "\$tool" "\$@" |
    curl -sS --max-time 120 --unix-socket '$control' -o "\$said" -w '%{http_code}' --data-binary @- http://double/command)
if [ "\$status" = 200 ]; then cat "\$said"; rm "\$said"; exit 0; fi
cat "\$said" >&2
rm "\$said"
exit 255
STUB
chmod 755 "$dir/bin/stub"
for tool in pvesm qm; do ln -sf stub "$dir/bin/$tool"; done

cat >"$dir/ssh/sshd_config" <<CONF
ListenAddress $address
Port 2222
HostKey $dir/ssh/host_key
AuthorizedKeysFile $dir/ssh/authorized_keys
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
MaxStartups 100
# A home of its own: what this machine's user has in .bashrc may be slow, or wait for something.
SetEnv HOME=$dir/home PATH=$dir/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CONF
# A newer sshd turns away who failed to log in a few times, as the tests do. An older one knows no such option.
if "$(command -v sshd)" -G -f "$dir/ssh/sshd_config" 2>/dev/null | grep -qi '^persourcepenalties'; then
    echo 'PerSourcePenalties no' >>"$dir/ssh/sshd_config"
fi

# A background process has no standard input by itself.
exec 3<&0
unshare --pid --fork --kill-child --mount --mount-proc --uts "$here/node-init.sh" "$dir" "$address" "$shared" "$name" <&3 3<&- &
outer=$!
exec 3<&-
# The init is the one child of unshare.
until init=$(cat "/proc/$outer/task/$outer/children" 2>/dev/null) && [ -n "$init" ]; do
    kill -0 "$outer" 2>/dev/null || exit 1
    sleep 0.02
done
echo "${init%% *}" >"$dir/init"
wait "$outer"
