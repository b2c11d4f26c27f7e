#!/bin/sh
# Makes what the other containers find: two passwords, and directories that the service may write.
# Typed again it changes no password.
#
#   prepare.sh UID:GID PASSWORDS SECRETS STATE
set -eu
owner=$1 passwords=$2 secrets=$3 state=$4

for name in source target; do
    file=$passwords/$name
    if [ ! -s "$file" ]; then
        # 192 bits, in letters that need no quoting in a connection string.
        (umask 077 && od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$file.new")
        mv "$file.new" "$file"
    fi
    # The service refuses a password that everybody may read; PostgreSQL's container reads it as
    # root.
    chown "$owner" "$file"
    chmod 0440 "$file"
done
# The Connect worker passes through the secrets as a member of the group.
chown "$owner" "$passwords" "$secrets" "$state"
chmod 0750 "$passwords" "$secrets" "$state"
