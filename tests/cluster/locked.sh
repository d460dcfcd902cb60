#!/usr/bin/env bash
# Runs a command as the containers of deploy/ run theirs: without capabilities, and able to write to
# the given folders only.
#
#   unshare --map-root-user --mount locked.sh FOLDER... -- COMMAND...
set -euo pipefail

writable=" "
while [[ $1 != -- ]]; do
  mount --bind "$1" "$1"
  writable+="$1 "
  shift
done
shift
while read -r _ _ _ _ point _; do
  case $point in
    /dev | /dev/* | /proc | /proc/* | /sys | /sys/*) ;; # a container has its own
    *) [[ $writable == *" $point "* ]] || mount -o remount,bind,ro "$point" ;;
  esac
done </proc/self/mountinfo
exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs -- "$@"
