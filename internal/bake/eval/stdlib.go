package eval

import (
	"github.com/hashicorp/go-cty-funcs/cidr"
	"github.com/hashicorp/go-cty-funcs/crypto"
	"github.com/hashicorp/go-cty-funcs/encoding"
	"github.com/hashicorp/go-cty-funcs/uuid"
	"github.com/hashicorp/hcl/v2/ext/tryfunc"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// standardFunctions is the standard library of bake, as buildx documents it.
// The functions that need to know of the world are told by Input.
func (e *evaluator) standardFunctions() map[string]*callable {
	table := []struct {
		name  string
		fn    function.Function
		check costCheck
	}{
		{"absolute", stdlib.AbsoluteFunc, nil},
		{"add", stdlib.AddFunc, nil},
		{"and", stdlib.AndFunc, nil},
		{"base64decode", encoding.Base64DecodeFunc, nil},
		{"base64encode", encoding.Base64EncodeFunc, nil},
		{"basename", basenameFunc(), nil},
		{"bcrypt", crypto.BcryptFunc, bcryptCost},
		{"byteslen", bytesLenFunc(), nil},
		{"bytesslice", bytesSliceFunc(), nil},
		{"can", tryfunc.CanFunc, nil},
		{"ceil", stdlib.CeilFunc, nil},
		{"chomp", stdlib.ChompFunc, nil},
		{"chunklist", stdlib.ChunklistFunc, nil},
		{"cidrhost", cidr.HostFunc, nil},
		{"cidrnetmask", cidr.NetmaskFunc, nil},
		{"cidrsubnet", cidr.SubnetFunc, nil},
		{"cidrsubnets", cidr.SubnetsFunc, nil},
		{"coalesce", stdlib.CoalesceFunc, nil},
		{"coalescelist", stdlib.CoalesceListFunc, nil},
		{"compact", stdlib.CompactFunc, nil},
		{"concat", stdlib.ConcatFunc, nil},
		{"contains", stdlib.ContainsFunc, nil},
		{"convert", typeexpr.ConvertFunc, nil},
		{"csvdecode", stdlib.CSVDecodeFunc, decodeCost},
		{"dirname", dirnameFunc(), nil},
		{"distinct", stdlib.DistinctFunc, distinctCost},
		{"divide", stdlib.DivideFunc, nil},
		{"element", stdlib.ElementFunc, nil},
		{"equal", stdlib.EqualFunc, nil},
		{"flatten", stdlib.FlattenFunc, nil},
		{"floor", stdlib.FloorFunc, nil},
		{"format", stdlib.FormatFunc, formatCost},
		{"formatdate", stdlib.FormatDateFunc, lettersCost},
		{"formatlist", stdlib.FormatListFunc, formatListCost},
		{"formattimestamp", formatTimestampFunc(), lettersCost},
		{"greaterthan", stdlib.GreaterThanFunc, nil},
		{"greaterthanorequalto", stdlib.GreaterThanOrEqualToFunc, nil},
		{"hasindex", stdlib.HasIndexFunc, nil},
		{"homedir", constantFunc(e.in.Home), nil},
		{"indent", stdlib.IndentFunc, indentCost},
		{"index", indexFunc(), nil},
		{"indexof", indexOfFunc(), nil},
		{"int", stdlib.IntFunc, nil},
		{"join", stdlib.JoinFunc, joinCost},
		{"jsondecode", stdlib.JSONDecodeFunc, jsonDecodeCost},
		{"jsonencode", stdlib.JSONEncodeFunc, nil},
		{"keys", stdlib.KeysFunc, nil},
		{"length", stdlib.LengthFunc, nil},
		{"lessthan", stdlib.LessThanFunc, nil},
		{"lessthanorequalto", stdlib.LessThanOrEqualToFunc, nil},
		{"log", stdlib.LogFunc, nil},
		{"lookup", stdlib.LookupFunc, nil},
		{"lower", stdlib.LowerFunc, lettersCost},
		{"max", stdlib.MaxFunc, nil},
		{"md5", crypto.Md5Func, nil},
		{"merge", stdlib.MergeFunc, nil},
		{"min", stdlib.MinFunc, nil},
		{"modulo", stdlib.ModuloFunc, nil},
		{"multiply", stdlib.MultiplyFunc, nil},
		{"negate", stdlib.NegateFunc, nil},
		{"not", stdlib.NotFunc, nil},
		{"notequal", stdlib.NotEqualFunc, nil},
		{"or", stdlib.OrFunc, nil},
		{"parseint", stdlib.ParseIntFunc, shortText},
		{"pow", stdlib.PowFunc, nil},
		{"range", stdlib.RangeFunc, nil},
		{"regex", stdlib.RegexFunc, regexCost},
		{"regex_replace", stdlib.RegexReplaceFunc, regexReplaceCost},
		{"regexall", stdlib.RegexAllFunc, regexAllCost},
		{"replace", stdlib.ReplaceFunc, replaceCost},
		{"reverse", stdlib.ReverseFunc, lettersCost},
		{"reverselist", stdlib.ReverseListFunc, nil},
		{"rsadecrypt", crypto.RsaDecryptFunc, rsaCost},
		{"sanitize", sanitizeFunc(), nil},
		{"semvercmp", semverFunc(), shortText},
		{"sethaselement", stdlib.SetHasElementFunc, nil},
		{"setintersection", stdlib.SetIntersectionFunc, nil},
		{"setproduct", stdlib.SetProductFunc, productCost},
		{"setsubtract", stdlib.SetSubtractFunc, nil},
		{"setsymmetricdifference", stdlib.SetSymmetricDifferenceFunc, nil},
		{"setunion", stdlib.SetUnionFunc, nil},
		{"sha1", crypto.Sha1Func, nil},
		{"sha256", crypto.Sha256Func, nil},
		{"sha512", crypto.Sha512Func, nil},
		{"signum", stdlib.SignumFunc, nil},
		{"slice", stdlib.SliceFunc, nil},
		{"sort", stdlib.SortFunc, sortCost},
		{"split", stdlib.SplitFunc, splitCost},
		{"strlen", stdlib.StrlenFunc, lettersCost},
		{"substr", stdlib.SubstrFunc, lettersCost},
		{"subtract", stdlib.SubtractFunc, nil},
		{"timeadd", stdlib.TimeAddFunc, nil},
		{"timestamp", constantFunc(rfc3339(e.in.Now)), nil},
		{"title", stdlib.TitleFunc, lettersCost},
		{"trim", stdlib.TrimFunc, trimCost},
		{"trimprefix", stdlib.TrimPrefixFunc, nil},
		{"trimspace", stdlib.TrimSpaceFunc, nil},
		{"trimsuffix", stdlib.TrimSuffixFunc, nil},
		{"try", tryfunc.TryFunc, nil},
		{"unixtimestampparse", unixTimestampFunc(), nil},
		{"upper", stdlib.UpperFunc, lettersCost},
		{"urlencode", encoding.URLEncodeFunc, nil},
		{"uuidv4", uuid.V4Func, nil},
		{"uuidv5", uuid.V5Func, nil},
		{"values", stdlib.ValuesFunc, nil},
		{"zipmap", stdlib.ZipmapFunc, nil},
	}
	out := make(map[string]*callable, len(table))
	for _, row := range table {
		out[row.name] = &callable{name: row.name, fn: row.fn, check: row.check, params: row.fn.Params(), rest: row.fn.VarParam()}
	}
	return out
}

// customDecoded are the functions that HCL itself calls: they take expressions,
// not values.
func customDecoded(all map[string]*callable) map[string]function.Function {
	out := map[string]function.Function{}
	for name, f := range all {
		if f.takesExpressions() {
			out[name] = f.fn
		}
	}
	return out
}
