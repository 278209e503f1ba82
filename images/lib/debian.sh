# shellcheck shell=bash disable=SC2034,SC2154,SC2016 # shared variables; hooks expand in shells of their own
# Debian packages for the guest, whatever release the host runs. Expects common.sh.

SUITE=trixie

# Prints apt source lines for SUITE on the mirrors this host already uses; nothing when it has none of Debian's.
host_sources() {
    apt-get indextargets --format '$(ORIGIN) $(REPO_URI) $(RELEASE) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
        awk -v suite="$SUITE" '
            $1 == "Debian" && $5 == "main" {
                base = $4; sub(/-.*/, "", base)
                pocket = $4; sub(/^[^-]*/, "", pocket)
                if (pocket ~ /^(|-updates|-security)$/) print "deb " $2 " " suite pocket " main"
            }' | sort -u
}

# Prints the sources to use: the host's mirrors where they offer SUITE, else nothing (mmdebstrap's own defaults).
# The choice is made once per run.
debian_sources() {
    local chosen=$WORK/sources
    if [ ! -e "$chosen" ]; then
        host_sources >"$chosen.host"
        if [ -s "$chosen.host" ] &&
            mmdebstrap --variant=extract "$SUITE" /dev/null - <"$chosen.host" >>"$LOG" 2>&1; then
            mv "$chosen.host" "$chosen"
        else
            : >"$chosen"
        fi
    fi
    cat "$chosen"
}

# mmdebstrap_suite FORMAT OUTPUT ARGUMENT...: mmdebstrap of SUITE with the chosen sources and the host's proxy.
mmdebstrap_suite() {
    local sources
    sources=$(debian_sources)
    host_proxy
    if [ -n "$sources" ]; then
        mmdebstrap --mode=root --format="$1" "${@:3}" "$SUITE" "$2" - <<<"$sources" >>"$LOG" 2>&1
    else
        mmdebstrap --mode=root --format="$1" "${@:3}" "$SUITE" "$2" >>"$LOG" 2>&1 </dev/null
    fi
}

# Exports the proxy of the host's apt configuration, unless the environment names one already.
host_proxy() {
    local scheme proxy
    for scheme in http https; do
        proxy=$(apt-config dump --format '%v' "Acquire::$scheme::Proxy")
        if [ -n "$proxy" ] && [ -z "$(printenv "${scheme}_proxy")" ]; then
            export "${scheme}_proxy=$proxy"
        fi
    done
}
