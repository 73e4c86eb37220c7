package token

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/go-jose/go-jose/v4"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// planJWKS publishes the keys of the mount's roles.
func (e *Engine) planJWKS(r *engine.Request) (*engine.Plan, error) {
	return e.document(r, func(v *seal.View, roles []charter.TokenRole) (any, error) {
		set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
		for i := range roles {
			keys, err := e.published(v, &roles[i])
			if err != nil {
				return nil, err
			}
			set.Keys = append(set.Keys, keys...)
		}
		return set, nil
	})
}

// discovery is what a service needs of OpenID Connect Discovery 1.0, section 3, to
// check our tokens. We have no end points for people who log in.
type discovery struct {
	Issuer     string   `json:"issuer"`
	JWKS       string   `json:"jwks_uri"`
	Algorithms []string `json:"id_token_signing_alg_values_supported"`
	Responses  []string `json:"response_types_supported"`
	Subjects   []string `json:"subject_types_supported"`
}

func (e *Engine) planDiscovery(r *engine.Request) (*engine.Plan, error) {
	return e.document(r, func(_ *seal.View, roles []charter.TokenRole) (any, error) {
		d := discovery{
			Issuer: roles[0].Issuer, JWKS: e.host.Public + "/v1/" + e.host.Mount + "/jwks", Responses: []string{"id_token"}, Subjects: []string{"public"},
		}
		for _, role := range roles {
			alg := algorithmOf(e.host.Charter().Keys[role.TokenKey].Algorithm)
			if role.Software != nil {
				alg = role.Software.Algorithm
			}
			d.Algorithms = append(d.Algorithms, alg)
		}
		slices.Sort(d.Algorithms)
		d.Algorithms = slices.Compact(d.Algorithms)
		return d, nil
	})
}

// document is the plan of a document about all roles; without any there is none.
func (e *Engine) document(r *engine.Request, of func(*seal.View, []charter.TokenRole) (any, error)) (*engine.Plan, error) {
	if err := r.Params.Only(); err != nil {
		return nil, err
	}
	var raw []byte
	work := func(context.Context) error {
		c := e.host.Charter()
		var roles []charter.TokenRole
		for _, name := range c.TokenRoleNames(e.host.Mount) {
			roles = append(roles, c.TokenRoles[charter.At(e.host.Mount, name)])
		}
		if len(roles) == 0 {
			return engine.ErrNotThere
		}
		return e.host.View(func(v *seal.View) error {
			doc, err := of(v, roles)
			if err != nil {
				return err
			}
			raw, err = json.Marshal(doc)
			return err
		})
	}
	apply := func(*seal.Tx) (*engine.Answer, error) {
		return &engine.Answer{Raw: raw, ContentType: "application/json"}, nil
	}
	return &engine.Plan{Needs: access.Read, Work: work, Apply: apply}, nil
}
