package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
)

// What SOCKS 5 says in bytes: RFC 1928, and RFC 1929 for the login.
const (
	socksVersion  = 5
	loginVersion  = 1
	methodNone    = 0
	methodLogin   = 2
	methodNothing = 0xff
	cmdConnect    = 1
	addrIPv4      = 1
	addrName      = 3
	addrIPv6      = 4
)

// socks asks a SOCKS proxy for the connection.
func (d dialer) socks(c net.Conn, host string) error {
	if err := d.greet(c); err != nil {
		return err
	}
	ask, err := d.request(host)
	if err != nil {
		return err
	}
	if _, err := c.Write(ask); err != nil {
		return d.broken(err)
	}
	var head [4]byte // version, reply, reserved, kind of the address
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return d.broken(err)
	}
	if head[0] != socksVersion {
		return d.notProxy(fmt.Sprintf("it answers as version %d", head[0]), nil)
	}
	if head[1] != 0 {
		return d.reply(head[1])
	}
	return d.skipAddress(c, head[3])
}

// greet agrees on how to log in, and does.
func (d dialer) greet(c net.Conn) error {
	methods := []byte{methodNone}
	if d.proxy.User != "" {
		methods = append(methods, methodLogin)
	}
	if _, err := c.Write(append([]byte{socksVersion, byte(len(methods))}, methods...)); err != nil {
		return d.broken(err)
	}
	var answer [2]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return d.broken(err)
	}
	switch {
	case answer[0] != socksVersion:
		return d.notProxy("it does not speak SOCKS 5", nil)
	case answer[1] == methodNone:
		return nil
	case answer[1] == methodLogin && d.proxy.User != "":
		return d.login(c)
	case answer[1] == methodNothing:
		return d.wantsLogin("it accepts no way to log in that was offered")
	}
	return d.notProxy("it chooses a way to log in that was not offered", nil)
}

func (d dialer) login(c net.Conn) error {
	user, password := d.proxy.User, d.proxy.Password.Reveal() // both short enough: endpoint.ParseProxy
	ask := append([]byte{loginVersion, byte(len(user))}, user...)
	ask = append(append(ask, byte(len(password))), password...)
	if _, err := c.Write(ask); err != nil {
		return d.broken(err)
	}
	var answer [2]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return d.broken(err)
	}
	if answer[1] != 0 {
		return d.wantsLogin("status " + strconv.Itoa(int(answer[1])))
	}
	return nil
}

// request is what asks for the connection.
func (d dialer) request(host string) ([]byte, error) {
	ask := []byte{socksVersion, cmdConnect, 0}
	ip, err := netip.ParseAddr(host)
	switch {
	case err == nil && ip.Is4():
		ask = append(append(ask, addrIPv4), ip.AsSlice()...)
	case err == nil:
		ask = append(append(ask, addrIPv6), ip.WithZone("").AsSlice()...)
	default:
		name := strings.TrimSuffix(host, ".")
		if len(name) > 255 {
			return nil, errors.New("the host's name is too long for SOCKS")
		}
		ask = append(append(ask, addrName, byte(len(name))), name...)
	}
	port, err := strconv.ParseUint(d.to.Port, 10, 16)
	if err != nil {
		return nil, err
	}
	return binary.BigEndian.AppendUint16(ask, uint16(port)), nil
}

// skipAddress reads the address that the proxy connects from, which ends its
// answer.
func (d dialer) skipAddress(c net.Conn, kind byte) error {
	n := 0
	switch kind {
	case addrIPv4:
		n = 4
	case addrIPv6:
		n = 16
	case addrName:
		var size [1]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return d.broken(err)
		}
		n = int(size[0])
	default:
		return d.notProxy(fmt.Sprintf("it answers with an address of kind %d", kind), nil)
	}
	if _, err := io.ReadFull(c, make([]byte, n+2)); err != nil {
		return d.broken(err)
	}
	return nil
}

// reply is a request that failed.
func (d dialer) reply(code byte) error {
	switch code {
	case 1:
		return d.gateway("SOCKS: general failure")
	case 2:
		return d.refused("SOCKS: not allowed by its rules")
	case 3:
		return d.gateway("SOCKS: network unreachable")
	case 4:
		return d.gateway("SOCKS: host unreachable")
	case 5:
		return d.gateway("SOCKS: connection refused")
	case 6:
		return d.gateway("SOCKS: the packets live too short")
	case 7:
		return d.refused("SOCKS: it makes no connections")
	case 8:
		return d.refused("SOCKS: it does not know this kind of address")
	}
	return d.notProxy(fmt.Sprintf("it answers with code %d", code), nil)
}

// clean makes what a stranger sent fit for a line, and short.
func clean(text string) string {
	const most = 100
	var b strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar && b.Len() < most {
			b.WriteRune(r)
		}
	}
	return strings.TrimSpace(b.String())
}
