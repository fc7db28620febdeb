# Runs one PostgreSQL server for the process at the other end of stdin, and outlives that process
# just long enough to stop the server and to remove its folder.
#
# Arguments: postgres, folder. Orders on stdin, one a line: `start PORT`, `stop`, `reload`, `release`.
# Answers on stdout: `started PID`, then `exited` whenever that server has ended.
# Invariant: end of file on stdin, however it comes about, ends the server. After `release` the
# server goes on until someone stops it, and the folder is removed then.
set -u
postgres=$1
folder=$2
pid=
waiter=

# A terminal's interrupt or hang-up is for the process that started us; its end reaches us on stdin.
trap '' INT HUP TERM
mkfifo -m 600 "$folder/started" || exit 1

start() {
    (
        "$postgres" -D "$folder/data" -p "$1" </dev/null >>"$folder/log" 2>&1 &
        echo "$!" >"$folder/started"
        wait "$!"
        echo exited
    ) 2>/dev/null &
    waiter=$!
    read -r pid <"$folder/started"
    echo "started $pid"
}

while read -r order argument; do
    case $order in
        start) start "$argument" ;;
        stop)
            kill -QUIT "$pid"
            wait "$waiter"
            pid= # never signalled again: the number may soon be another program's
            ;;
        reload) kill -HUP "$pid" ;;
        release)
            exec >/dev/null
            wait "$waiter"
            rm -rf "$folder"
            exit
            ;;
    esac
done 2>/dev/null

if [ -n "$pid" ]; then
    kill -QUIT "$pid" 2>/dev/null
    wait "$waiter"
fi
rm -rf "$folder"
