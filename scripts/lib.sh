# Set-up shared by the scripts beside it; sourced by them with `set -eu` in force and $root set to the checkout.
# POSIX sh. Everything is said on stderr: stdout belongs to the command that follows.
# shellcheck shell=sh disable=SC2154 # root is set by who sources this

# Ordinary users of Debian do not have the folders of nft and ip on their PATH.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

say() { printf 'polywan: %s\n' "$*" >&2; }

die() {
    say "$*"
    exit 1
}

# set_up EXTRA TOOL...: make the tools and $root/.venv with the package and its extra ("run" or "dev") ready.
# Costs one start of Python when there is nothing to do.
set_up() {
    extra=$1
    shift
    venv=$root/.venv
    lacking=
    for tool in "$@"; do
        command -v "$tool" >/dev/null 2>&1 || lacking="$lacking $tool"
    done
    if [ -z "$lacking" ] && is_ready; then return; fi
    (
        # One at a time: a second script waits here, and then finds all done. The lock needs no file of its own.
        exec 9<"$root/pyproject.toml"
        ! command -v flock >/dev/null 2>&1 || flock 9
        umask 022
        # shellcheck disable=SC2086 # a list of tool names
        install_system $lacking
        is_ready || install_venv
        give_back
    )
}

# offer TOOL...: install what only some tests want. Where that is not possible they are skipped, and say why.
offer() {
    lacking=
    for tool in "$@"; do
        command -v "$tool" >/dev/null 2>&1 || lacking="$lacking $tool"
    done
    if [ -z "$lacking" ]; then return; fi
    if [ "$(id -u)" != 0 ] && ! sudo -n true >/dev/null 2>&1; then
        say "some tests are skipped for want of$lacking"
        return
    fi
    (
        exec 9<"$root/pyproject.toml"
        ! command -v flock >/dev/null 2>&1 || flock 9
        manager=$(package_manager)
        # One by one: a system that has one of them need not have the others.
        for tool in $lacking; do
            packages=$(package_of "$tool")
            (get_packages) || say "some tests are skipped for want of $tool"
        done
    )
}

# What the environment was made from: this folder, this Python, these packages.
wanted_stamp() {
    "$venv/bin/python" -I -c 'import sys; print("%d.%d" % sys.version_info[:2], sys.argv[1])' "$root" 2>/dev/null &&
        cat "$root/pyproject.toml" "$root/packaging"/requirements*.txt | cksum
}

is_ready() {
    wanted=$(wanted_stamp) || return 1
    for stamp in "$venv/.polywan-dev" "$venv/.polywan-$extra"; do
        if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then return 0; fi
    done
    return 1
}

# install_system TOOL...: bring what is absent: the tools, a Python that is new enough, and libnftables.
install_system() {
    manager=$(package_manager)
    packages=
    for tool in "$@"; do
        packages="$packages $(package_of "$tool")"
    done
    find_python || packages="$packages $(package_of python)"
    if [ -n "$python" ] && ! "$python" -I -c 'import ctypes; ctypes.CDLL("libnftables.so.1")' >/dev/null 2>&1; then
        packages="$packages $(package_of libnftables)"
    fi
    if [ -z "$packages" ]; then return; fi
    # shellcheck disable=SC2086 # a list of packages
    packages=$(printf '%s\n' $packages | sort -u | tr '\n' ' ')
    packages=${packages% }
    get_packages
    find_python ||
        die "Python 3.11 or newer with the modules venv and ensurepip is needed, and this system's packages do not bring it"
}

# Sets $python to the first one that can make the environment; false when there is none. Python 3.11 itself,
# without the modules, is remembered in $bare.
find_python() {
    python=
    bare=
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
        "$candidate" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue
        if "$candidate" -I -c 'import ensurepip, venv' >/dev/null 2>&1; then
            python=$candidate
            return 0
        fi
        bare=${bare:-$candidate}
    done
    return 1
}

package_manager() {
    for known in apt-get dnf pacman apk; do
        if command -v "$known" >/dev/null 2>&1; then
            echo "$known"
            return
        fi
    done
    echo none
}

# package_of TOOL: the package that brings it, by the names of the package manager at hand.
package_of() {
    case $manager:$1 in
    *:nft) echo nftables ;;
    *:unshare | *:setpriv)
        # Alpine has one package for each tool of util-linux.
        if [ "$manager" = apk ]; then echo "$1"; else echo util-linux; fi
        ;;
    apt-get:ip | pacman:ip | apk:ip | none:ip) echo iproute2 ;;
    dnf:ip) echo iproute ;;
    apt-get:conntrack | none:conntrack) echo conntrack ;;
    *:conntrack) echo conntrack-tools ;;
    apt-get:ping | none:ping) echo iputils-ping ;;
    *:ping) echo iputils ;;
    *:pppd) echo ppp ;;
    apt-get:pppoe-server | none:pppoe-server) echo pppoe ;;
    *:pppoe-server) echo rp-pppoe ;;
    apt-get:dnsmasq | none:dnsmasq) echo dnsmasq-base ;;
    apt-get:dhclient | none:dhclient) echo isc-dhcp-client ;;
    apt-get:dhcpcd | none:dhcpcd) echo dhcpcd-base ;;
    dnf:iptables-nft-restore | pacman:iptables-nft-restore) echo iptables-nft ;;
    *:iptables-nft-restore) echo iptables ;;
    apt-get:dpkg-buildpackage) echo dpkg-dev ;;
    apt-get:dh) echo debhelper ;;
    pacman:systemd-nspawn) echo systemd ;;
    *:systemd-nspawn) echo systemd-container ;;
    apt-get:libnftables | none:libnftables) echo libnftables1 ;;
    pacman:libnftables | apk:libnftables) echo nftables ;;
    dnf:libnftables) echo nftables-libs ;;
    *:promtool) echo prometheus ;;
    apt-get:sshd | none:sshd) echo openssh-server ;;
    dnf:sshd) echo openssh-server ;;
    apt-get:ssh | none:ssh) echo openssh-client ;;
    dnf:ssh) echo openssh-clients ;;
    *:ssh | *:sshd) echo openssh ;;
    apt-get:python) debian_python ;;
    pacman:python) echo python ;;
    *:python) echo python3 ;;
    *) echo "$1" ;;
    esac
}

# Debian keeps ensurepip in a package of its own for each version of Python.
debian_python() {
    case $bare in
    '') echo python3 python3-venv ;;
    python3 | /usr/bin/python3) echo python3-venv ;;
    *) echo "$bare-venv" ;;
    esac
}

# Install $packages, or say in one line how to.
get_packages() {
    case $manager in
    apt-get) command="apt-get install -y --no-install-recommends $packages" ;;
    dnf) command="dnf install -y $packages" ;;
    pacman) command="pacman -S --needed --noconfirm $packages" ;;
    apk) command="apk add $packages" ;;
    none) die "please install: $packages" ;;
    esac
    if [ "$(id -u)" = 0 ]; then
        become=
    elif sudo -n true >/dev/null 2>&1; then
        become='sudo -n'
    else
        die "please run this first: sudo $command"
    fi
    say "installing $packages"
    log=$(mktemp)
    if ! as_root "$command" >"$log" 2>&1; then
        # Old or absent package lists are the usual reason.
        refresh_lists >>"$log" 2>&1 || true
        if ! as_root "$command" >>"$log" 2>&1; then
            cat "$log" >&2
            rm -f "$log"
            die "that failed; please repair it and run: $command"
        fi
    fi
    rm -f "$log"
}

# shellcheck disable=SC2086 # both are lists of words
as_root() {
    # A machine that has just been started may be busy with its own updates.
    if [ "$manager" = apt-get ]; then set -- "$1 -o DPkg::Lock::Timeout=300"; fi
    $become env DEBIAN_FRONTEND=noninteractive $1 </dev/null
}

refresh_lists() {
    case $manager in
    apt-get) as_root 'apt-get update' ;;
    pacman) as_root 'pacman -Sy' ;;
    apk) as_root 'apk update' ;;
    esac
}

install_venv() {
    [ -w "$root" ] || die "cannot write to $root: run this as its owner, or copy the folder to one of yours"
    if [ -e "$venv" ] && [ ! -w "$venv" ]; then
        die "$venv belongs to $(owner_of "$venv"): run this as that user, or remove the folder"
    fi
    unset PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX
    if ! is_usable; then
        say "making $venv with $("$python" -V 2>&1)"
        "$python" -m venv --clear "$venv" >&2
    fi
    locks='requirements requirements-build'
    if [ "$extra" = dev ]; then locks=requirements-dev; fi
    say "installing polywan and what it needs into $venv"
    # shellcheck disable=SC2086 # a list of names
    install_locked "$venv" $locks
    pip_in "$venv" install --no-deps --no-build-isolation -e "$root"
    wanted_stamp >"$venv/.polywan-$extra"
}

# install_locked ENVIRONMENT LOCK...: what these files of packaging/ name, each file of a package by its hash.
install_locked() {
    environment=$1
    shift
    for lock in "$@"; do
        set -- "$@" -r "$root/packaging/$lock.txt"
        shift
    done
    # Nothing is built on the way: that would fetch tools that no lock names.
    pip_in "$environment" install --require-hashes --only-binary :all: "$@"
}

# pip_in ENVIRONMENT ARGUMENT...: the environment's own pip, or the end.
pip_in() {
    environment=$1
    shift
    PIP_USER=0 "$environment/bin/python" -m pip --quiet --disable-pip-version-check "$@" >&2 ||
        die "pip could not install the Python packages (see above); run this again once the network is there"
}

# An environment that works and that nobody has moved can be brought up to date; any other is made anew.
is_usable() {
    "$venv/bin/python" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || return 1
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || return 1
    made_from=$(wanted_stamp | head -n 1)
    for stamp in "$venv"/.polywan-*; do
        if [ -f "$stamp" ] && [ "$(head -n 1 "$stamp")" != "$made_from" ]; then return 1; fi
    done
}

owner_of() {
    # shellcheck disable=SC2012 # find -printf and stat differ between systems; only the third word is used
    ls -ldn "$1" | awk '{ print $3 }'
}

# Root working in somebody's checkout leaves nothing there which its owner cannot change or remove.
give_back() {
    if [ "$(id -u)" != 0 ]; then return; fi
    owner=$(owner_of "$root")
    if [ "$owner" = 0 ]; then return; fi
    find "$root" -user 0 \( -path "$root/.venv*" -o -path "$root/.*_cache*" -o -path "$root/.hypothesis*" \
        -o -path "$root/build*" \
        -o -path '*/__pycache__*' \) -exec chown -h "$owner" {} +
}
