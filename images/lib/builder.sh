# shellcheck shell=bash disable=SC2034,SC2154,SC2016 # shared variables; hooks expand in shells of their own
# The builder MicroVM's root disk. Expects common.sh, debian.sh and containers.sh.

# builder.erofs: Debian with buildah and the job scripts of images/builder/usr/lib/hearth.
make_builder() {
    local hash tree=$WORK/builder files
    hash=$(hash_of "$STAMPS/debian" "$HERE/lib/builder.sh" "$HERE/builder/packages")
    if ! is_fresh builder-packages "$hash" .builder-packages.tar; then
        step "builder: buildah and what it needs"
        install_builder_packages "$tree"
        pack_tree "$tree" .builder-packages.tar
        stamp builder-packages "$hash"
    fi
    mapfile -t files < <(find "$HERE/builder/etc" "$HERE/builder/usr" -type f | LC_ALL=C sort)
    hash=$(hash_of "$STAMPS/builder-packages" "$HERE/lib/builder.sh" "${files[@]}")
    if ! is_fresh builder "$hash" builder.erofs; then
        step "builder: root disk"
        unpack_builder "$tree"
        # Not compressed: the host's page cache holds it once for all builders, and reading it then costs a copy only.
        quietly mkfs.erofs -T0 -U 00000000-0000-0000-0000-000000000000 "$WORK/builder.erofs" "$tree"
        publish "$WORK/builder.erofs" builder.erofs
        stamp builder "$hash"
        remove_tree "$tree"
    fi
}

# unpack_builder TREE: the whole of the builder's file system.
unpack_builder() {
    mkdir "$1"
    tar -C "$1" -xf "$OUT/.builder-packages.tar" --numeric-owner --xattrs --xattrs-include='*'
    cp -r "$HERE"/builder/etc "$HERE"/builder/usr "$1"
    chmod 755 "$1"/usr/lib/hearth/{build,add-base}
    make_step_devices "$1/usr/lib/hearth/dev"
}

# make_step_devices DIRECTORY: what a Dockerfile's steps find in /dev.
make_step_devices() {
    mkdir -p "$1/pts"
    mkdir -m 1777 "$1/shm" "$1/mqueue"
    mknod -m 666 "$1/null" c 1 3
    mknod -m 666 "$1/zero" c 1 5
    mknod -m 666 "$1/full" c 1 7
    mknod -m 666 "$1/random" c 1 8
    mknod -m 666 "$1/urandom" c 1 9
    mknod -m 666 "$1/tty" c 5 0
    ln -s pts/ptmx "$1/ptmx"
    ln -s /proc/self/fd "$1/fd"
    ln -s /proc/self/fd/0 "$1/stdin"
    ln -s /proc/self/fd/1 "$1/stdout"
    ln -s /proc/self/fd/2 "$1/stderr"
}

install_builder_packages() {
    local packages
    packages=$(tr '\n' ' ' <"$HERE/builder/packages")
    # buildah's own test programs and the network plugins are not used: builds share the machine's network. It looks for
    # `netavark` at each start all the same.
    extend_debian "$1" --customize-hook='
        set -e
        chroot "$1" apt-get install -y --no-install-recommends '"$packages"'
        rm -rf "$1"/usr/libexec/buildah "$1"/usr/lib/cni
        mkdir -p "$1"/bases "$1"/var/lib/containers "$1"/usr/libexec/podman
        ln -s /bin/false "$1"/usr/libexec/podman/netavark'
}
