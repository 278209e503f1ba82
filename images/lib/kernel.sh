# shellcheck shell=bash disable=SC2034,SC2154,SC2016 # shared variables; hooks expand in shells of their own
# Guest kernel, its modules, and the initramfs. Expects common.sh and debian.sh.

KERNEL_PACKAGE=linux-image-cloud-amd64

# vmlinuz, vmlinux, kernel-release, modules/: Debian's cloud kernel, unpacked, never installed on the host.
make_kernel() {
    local hash tree release
    hash=$(hash_of "$HERE/lib/debian.sh" "$HERE/lib/kernel.sh" "$HERE"/modules/*)
    if is_fresh kernel "$hash" vmlinuz vmlinux kernel-release modules/core.list modules/extra.list; then
        return
    fi
    step "guest kernel ($KERNEL_PACKAGE of $SUITE)"
    tree=$WORK/kernel
    mkdir -p "$tree/download"
    # The package is a name for the newest kernel; the one it depends on is what is wanted. apt of the new root's
    # configuration, run in the host, verifies and downloads it.
    mmdebstrap_suite null /dev/null --variant=extract --extract-hook='
        set -e
        export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
        package=$(apt-cache depends --important '"$KERNEL_PACKAGE"' | sed -n "s/.*Depends: \(linux-image-[0-9].*\)/\1/p")
        cd '"'$tree/download'"'
        apt-get -o APT::Sandbox::User=root download "$package"'
    dpkg-deb -x "$tree"/download/*.deb "$tree"
    # Debian 12's kmod looks in /lib only; the package has merged paths.
    [ -e "$tree/lib" ] || ln -s usr/lib "$tree/lib"
    release=$(basename "$tree"/usr/lib/modules/*)
    collect_modules "$tree" "$release"
    cp "$tree/boot/vmlinuz-$release" "$tree/vmlinuz"
    uncompress_kernel "$tree/vmlinuz" >"$tree/vmlinux"
    printf '%s\n' "$release" >"$tree/kernel-release"
    remove_tree "$OUT/modules"
    mv -T "$tree/modules" "$OUT/modules"
    publish "$tree/vmlinux" vmlinux
    publish "$tree/vmlinuz" vmlinuz
    publish "$tree/kernel-release" kernel-release
    stamp kernel "$hash"
    remove_tree "$tree"
}

# collect_modules TREE RELEASE: TREE/modules with the uncompressed modules and core.list and extra.list in load order.
collect_modules() {
    local tree=$1 release=$2 list path name
    quietly depmod -b "$tree" "$release"
    mkdir "$tree/modules"
    for list in core extra; do
        load_order "$tree/usr/lib/modules/$release" "$HERE/modules/$list" >"$tree/$list.paths"
        while read -r path; do
            name=$(basename "${path%%.ko*}").ko
            echo "$name"
            unpack_module "$tree/usr/lib/modules/$release/$path" >"$tree/modules/$name"
        done <"$tree/$list.paths" >"$tree/modules/$list.list"
    done
    # What is loaded at every boot need not be named among the extras again.
    grep -vxFf "$tree/modules/core.list" "$tree/modules/extra.list" >"$tree/extra.list"
    mv "$tree/extra.list" "$tree/modules/extra.list"
}

# load_order MODULES_DIR LIST: prints the paths of LIST's modules, each after what it depends on, each once.
# Built-in ones are left out; one that the kernel does not have at all ends the run.
load_order() {
    awk '
        function canonical(path) { sub(/.*\//, "", path); sub(/\.ko.*/, "", path); gsub(/-/, "_", path); return path }
        FILENAME ~ /modules.builtin$/ { builtin[canonical($1)] = 1; next }
        FILENAME ~ /modules.dep$/ {
            path = $1; sub(/:$/, "", path)
            at[canonical(path)] = path
            # depmod lists what must be loaded last first.
            for (i = 2; i <= NF; i++) needs[path] = $i " " needs[path]
            next
        }
        /^[a-z]/ {
            name = canonical($1)
            if (name in builtin) next
            if (!(name in at)) { print "no module " name " in this kernel" > "/dev/stderr"; exit 1 }
            count = split(needs[at[name]] at[name], paths, " ")
            for (i = 1; i <= count; i++) if (!seen[paths[i]]++) print paths[i]
        }' "$1/modules.builtin" "$1/modules.dep" "$2"
}

unpack_module() {
    case $1 in
        *.xz) xz -dc "$1" ;;
        *.zst) zstd -qdc "$1" ;;
        *.gz) gzip -dc "$1" ;;
        *) cat "$1" ;;
    esac
}

# uncompress_kernel BZIMAGE: prints the ELF kernel inside. Offsets: the x86 boot protocol's setup_sects (0x1f1),
# payload_offset (0x248) and payload_length (0x24c).
uncompress_kernel() {
    local image=$1 sectors offset length magic payload=$WORK/payload
    sectors=$(od -An -tu1 -j $((0x1f1)) -N1 "$image")
    offset=$(od -An -tu4 -j $((0x248)) -N4 "$image")
    length=$(od -An -tu4 -j $((0x24c)) -N4 "$image")
    offset=$((offset + (sectors + 1) * 512))
    # The last four bytes are the uncompressed size, put there by the kernel's build for its own loader.
    tail -c +$((offset + 1)) "$image" | head -c $((length - 4)) >"$payload" || [ -s "$payload" ]
    magic=$(od -An -tx1 -N4 "$payload" | tr -d ' ')
    case $magic in
        28b52ffd) zstd -qdc "$payload" ;;
        fd377a58) xz -dc "$payload" ;;
        02214c18) lz4 -dc "$payload" ;;
        1f8b*) gzip -dc "$payload" ;;
        7f454c46) cat "$payload" ;;
        *)
            echo "kernel payload of unknown compression ($magic)" >&2
            return 1
            ;;
    esac
    rm -f "$payload"
}

# initramfs.cpio: the agent as /init and the modules. Not compressed: it would boot no faster (README.md).
make_initramfs() {
    local hash tree=$WORK/initramfs
    hash=$(hash_of "$HERE/lib/kernel.sh" "$AGENT" "$STAMPS/kernel" -- "$(cat "$OUT/kernel-release")")
    if is_fresh initramfs "$hash" initramfs.cpio; then
        return
    fi
    step "initramfs"
    mkdir -p "$tree"/{dev,proc,sys,run}
    install -m 0755 "$AGENT" "$tree/init"
    cp -r "$OUT/modules" "$tree/modules"
    chmod -R u=rwX,go=rX "$tree"
    mknod -m 600 "$tree/dev/console" c 5 1
    find "$tree" -exec touch -h -d @0 {} +
    (cd "$tree" && find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc --reproducible -R 0:0) >"$WORK/initramfs.cpio"
    publish "$WORK/initramfs.cpio" initramfs.cpio
    stamp initramfs "$hash"
    remove_tree "$tree"
}
