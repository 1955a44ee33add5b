package kubeapi

import (
	"maps"
	"slices"
	"strings"
)

// LabelSelector is how an object chooses pods.
type LabelSelector struct {
	MatchLabels      map[string]string `json:"matchLabels"`
	MatchExpressions []struct {
		Key      string   `json:"key"`
		Operator string   `json:"operator"`
		Values   []string `json:"values"`
	} `json:"matchExpressions"`
}

// String is the selector as a query wants it.
func (s LabelSelector) String() string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		all = append(all, k+"="+s.MatchLabels[k])
	}
	for _, e := range s.MatchExpressions {
		values := " (" + strings.Join(e.Values, ",") + ")"
		switch e.Operator {
		case "In":
			all = append(all, e.Key+" in"+values)
		case "NotIn":
			all = append(all, e.Key+" notin"+values)
		case "Exists":
			all = append(all, e.Key)
		case "DoesNotExist":
			all = append(all, "!"+e.Key)
		}
	}
	return strings.Join(all, ",")
}
