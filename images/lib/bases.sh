# shellcheck shell=bash disable=SC2034,SC2154,SC2016 # shared variables; hooks expand in shells of their own
# The disk of container bases that every builder reads. Expects common.sh, containers.sh and builder.sh.

# Room for bases that an operator adds; sparse, so it costs what it holds.
BASES_BYTES=$((32 << 30))

# bases.img: the bases of containers/index.json, added by the builder's own job. It runs here rather than in a virtual
# machine: the trees are our own, and it takes seconds instead of minutes where the processor is emulated.
make_bases() {
    local hash tree=$WORK/bases entry
    hash=$(hash_of "$HERE/lib/bases.sh" "$HERE/builder/usr/lib/hearth/add-base" "$OUT/containers/index.json" \
        "$STAMPS/debian" "$STAMPS/python" "$STAMPS/builder-packages")
    if is_fresh bases "$hash" bases.img; then
        return
    fi
    step "container bases: disk"
    unpack_builder "$tree"
    truncate -s "$BASES_BYTES" "$WORK/bases.img"
    jq -c '.[]' "$OUT/containers/index.json" >"$WORK/bases.list"
    while read -r entry; do
        add_base "$tree" "$entry"
    done <"$WORK/bases.list"
    publish "$WORK/bases.img" bases.img
    stamp bases "$hash"
    remove_tree "$tree"
}

# add_base TREE ENTRY: adds one entry of the index, in a mount namespace that holds TREE as its root.
add_base() {
    local file arguments
    file=$(jq -r .file <<<"$2")
    mapfile -t arguments < <(jq -r '(.names[] | "--as", .), (.env[] | "--env", .), (.cmd[] | "--cmd", .)' <<<"$2")
    quietly unshare --mount bash -ec '
        tree=$1 out=$2 work=$3
        shift 3
        mount --bind "$tree" "$tree"
        cd "$tree"
        mount -t proc proc proc
        mount --rbind /dev dev
        mkdir -p mnt/out mnt/work
        mount --bind "$out" mnt/out
        mount --bind "$work" mnt/work
        exec chroot . "$@"' bash "$tree" "$OUT/containers" "$WORK" \
        env ARCHIVE_DEVICE="/mnt/out/$file" ARCHIVE_BYTES="$(stat -c %s "$OUT/containers/$file")" \
        BASES_DEVICE=/mnt/work/bases.img /usr/lib/hearth/add-base --kind rootfs "${arguments[@]}"
}
