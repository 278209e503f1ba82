# shellcheck shell=bash disable=SC2034,SC2154,SC2016 # shared variables; hooks expand in shells of their own
# Container bases: what a Dockerfile's FROM finds without a network. Expects common.sh and debian.sh.

# containers/*.tar and containers/index.json, which tells their names, environment and command.
make_containers() {
    local hash
    hash=$(hash_of "$HERE/lib/debian.sh" "$HERE/lib/containers.sh" "${DEBIAN_FILES[@]}")
    if ! is_fresh debian "$hash" containers/debian-13.tar; then
        step "container base debian:13"
        make_debian "$WORK/debian"
        pack_tree "$WORK/debian" containers/debian-13.tar
        stamp debian "$hash"
    fi
    hash=$(hash_of "$STAMPS/debian" "$HERE/lib/containers.sh")
    if ! is_fresh python "$hash" containers/python-3.13.tar; then
        step "container base python:3.13"
        make_python "$WORK/python"
        pack_tree "$WORK/python" containers/python-3.13.tar
        stamp python "$hash"
    fi
    if ! cmp -s "$HERE/containers/index.json" "$OUT/containers/index.json"; then
        cp "$HERE/containers/index.json" "$WORK/index.json"
        publish "$WORK/index.json" containers/index.json
    fi
}

mapfile -t DEBIAN_FILES < <(find "$HERE/containers/debian" -type f | LC_ALL=C sort)

# make_debian TREE: Debian's smallest set with apt, without documentation.
make_debian() {
    # The path filters count from the first package on only when they are also given as an option.
    mmdebstrap_suite directory "$1" --variant=minbase --include=ca-certificates \
        --dpkgopt="$HERE/containers/debian/etc/dpkg/dpkg.cfg.d/90container" \
        --setup-hook="cp -r $(quoted "$HERE/containers/debian")/. \"\$1\"/" \
        --customize-hook="$FORGET_HOST"
}

# make_python TREE: the same with Debian's Python, as the only one in the image: pip may install beside it; and two programs that
# people expect beside it.
make_python() {
    extend_debian "$1" --customize-hook='
        set -e
        chroot "$1" apt-get install -y --no-install-recommends python3 python3-pip python3-venv openssl uuid-runtime
        rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED
        ln -s /usr/bin/python3 "$1"/usr/local/bin/python'
}

# extend_debian TREE ARGUMENT...: the debian:13 tree plus what the hooks among the arguments install.
extend_debian() {
    local tree=$1
    shift
    mmdebstrap_suite directory "$tree" --variant=custom --skip=check/empty,setup,update,cleanup \
        --setup-hook="tar -C \"\$1\" -xf $(quoted "$OUT/containers/debian-13.tar") --numeric-owner --xattrs --xattrs-include='*'" \
        --setup-hook='mkdir -p "$1/dev/pts" "$1/dev/shm"' \
        --customize-hook='cp /etc/resolv.conf "$1/etc/resolv.conf" && chroot "$1" apt-get update' \
        "$@" --customize-hook="$FORGET_HOST"
}

# What a run leaves in a tree that belongs to this host, to this minute, or to nobody.
FORGET_HOST='
    set -e
    rm -f "$1"/etc/hostname "$1"/etc/resolv.conf "$1"/etc/machine-id "$1"/etc/.pwd.lock "$1"/etc/*- "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap
    rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/cache/debconf/*-old "$1"/var/cache/ldconfig/* \
        "$1"/var/lib/dpkg/*-old "$1"/var/log/apt "$1"/var/log/*.log "$1"/var/log/alternatives* "$1"/tmp/* "$1"/var/tmp/*
    mkdir -p "$1"/var/lib/apt/lists/partial "$1"/var/cache/apt/archives/partial
    : >"$1"/etc/machine-id'

# quoted TEXT: TEXT as one word for a hook's shell.
quoted() {
    printf '%q' "$1"
}

# pack_tree TREE OUTPUT: TREE as a tar without device nodes, and TREE removed.
pack_tree() {
    tar -C "$1" --create --file "$WORK/tree.tar" --format=pax --pax-option=delete=atime,delete=ctime \
        --sort=name --numeric-owner --xattrs --xattrs-include='*' --exclude='./dev/*' .
    publish "$WORK/tree.tar" "$2"
    remove_tree "$1"
}
