# What a guest shows of itself, for test_guest.py; $1 is a directory that it writes through to, $2 a file below /tmp.
# shellcheck shell=sh
echo "directory $(pwd)"
echo "user $(id -u)"
echo "variable $POLYWAN_WORD"
echo "other ${SECRET:-none}"
echo "tty $([ -t 1 ] && echo yes || echo no)"
echo "input $(cat | wc -c)"
echo "temporary $([ -e "$2" ] && echo "the host's" || echo "its own")"
echo "lo $(cat /sys/class/net/lo/flags)"
echo "descriptors $(cat /dev/fd/3 3< "$1/given")"
echo kept > "$1/kept"
echo gone > /etc/polywan-guest && echo "etc writable"
echo 'said on stderr' >&2

offer() {
    name=$1
    shift
    if "$@" > /dev/null 2>&1; then echo "offers $name"; else echo "lacks $name"; fi
}
for kind in bond bridge dummy ifb vrf veth wireguard; do
    case $kind in vrf) more='table 10' ;; veth) more='peer name b0' ;; *) more= ;; esac
    # shellcheck disable=SC2086 # a list of words
    offer "$kind" ip link add a0 type $kind $more
    ip link del a0 2> /dev/null
done
ip link add d0 type dummy
offer macvlan ip link add a0 link d0 type macvlan
for kind in cake fq_codel htb netem prio sfq ingress; do
    case $kind in ingress) at=ingress ;; *) at="root $kind" ;; esac
    # shellcheck disable=SC2086
    offer $kind tc qdisc add dev d0 $at
    tc qdisc del dev d0 root 2> /dev/null
done
for family in ip ip6 inet arp bridge; do
    offer "nft $family" nft "add table $family t; add chain $family t c { type filter hook input priority 0; }"
done
offer 'nft netdev' nft 'add table netdev t; add chain netdev t c { type filter hook ingress device d0 priority 0; }'
offer flowtable nft 'add table inet f; add flowtable inet f f { hook ingress priority 0; devices = { d0 }; }'
offer tun ip tuntap add dev t0 mode tun
offer ppp python3 -c 'import fcntl; fcntl.ioctl(open("/dev/ppp", "rb+"), 0xC004743E, bytearray(b"\xff" * 4))'
offer pppoe python3 -c 'import socket; socket.socket(24, socket.SOCK_STREAM, 0)'
exit 7
