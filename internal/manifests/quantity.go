package manifests

import (
	"errors"
	"math/big"
	"regexp"
	"strconv"
)

// maxQuantity bounds a quantity's text; nobody needs more digits.
const maxQuantity = 40

// quantity is Kubernetes' grammar of amounts: 2, 500m, 8Gi, 1.5G, 1e3.
func quantityParts() *regexp.Regexp {
	return regexp.MustCompile(`^([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(Ki|Mi|Gi|Ti|Pi|Ei|m|k|M|G|T|P|E|[eE][+-]?[0-9]{1,2})?$`)
}

// parseQuantity reads an amount above 0. Signs, and units below a thousandth,
// are refused, since no resource of a pod has a use for them.
func parseQuantity(s string) (*big.Rat, error) {
	if len(s) > maxQuantity {
		return nil, errors.New("is too long")
	}
	m := quantityParts().FindStringSubmatch(s)
	if m == nil {
		return nil, errors.New("is no quantity such as 500m, 2, 8Gi or 50G")
	}
	n, ok := new(big.Rat).SetString(m[1])
	if !ok {
		return nil, errors.New("is no number")
	}
	n.Mul(n, unit(m[2]))
	if n.Sign() <= 0 {
		return nil, errors.New("is not above 0")
	}
	return n, nil
}

// unit is what a suffix multiplies by.
func unit(suffix string) *big.Rat {
	power := func(base, exp int64) *big.Rat {
		r := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(base), big.NewInt(max(exp, -exp)), nil))
		if exp < 0 {
			r.Inv(r)
		}
		return r
	}
	switch suffix {
	case "":
		return power(10, 0)
	case "m":
		return power(10, -3)
	}
	const decimal, binary = "kMGTPE", "KMGTPE"
	if len(suffix) > 1 && suffix[1] == 'i' {
		return power(1024, int64(index(binary, suffix[0])))
	}
	if exp, err := strconv.ParseInt(suffix[1:], 10, 8); err == nil {
		return power(10, exp)
	}
	return power(1000, int64(index(decimal, suffix[0])))
}

// index is the place of a letter, from 1.
func index(letters string, c byte) int {
	for i := range len(letters) {
		if letters[i] == c {
			return i + 1
		}
	}
	return 0
}
