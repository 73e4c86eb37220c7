package store

// Account owns users and gateways.
type Account struct {
	ID        string
	PolicyKey []byte // DER SubjectPublicKeyInfo
	Created   string
	Disabled  bool
}

// User is a user of an account.
type User struct {
	Account, Name, Password, Created string
	Disabled                         bool
}

// Gateway is an entry that an account made, and the device that took it.
type Gateway struct {
	Account, ID      string
	Activation       string // hash of the activation key, used or not, or ""
	Expires          string // of the activation key
	Serial, SPKI     string // of the device, or ""
	Enrolled         string // time, or ""
	Disabled         bool
	AccountPolicyKey []byte // read with the entry
}

// Accepted is a device in an acceptance.
type Accepted struct{ Serial, SPKI, Cert, Bundle, Acceptance string }

// Login is a login token, by its hash.
type Login struct{ Token, Account, User, Key, Expires string }

// Policy is a signed account policy.
type Policy struct {
	Account string
	Version int64
	Hash    string
	Data    []byte
}

// AddAccount adds an account.
func (t *Tx) AddAccount(a Account) error {
	return t.exec("INSERT INTO account (id, policy_key, created) VALUES (?, ?, ?)", a.ID, a.PolicyKey, a.Created)
}

// Account returns an account.
func (t *Tx) Account(id string) (Account, error) {
	a := Account{ID: id}
	err := t.row("SELECT policy_key, created, disabled FROM account WHERE id = ?", id).Scan(&a.PolicyKey, &a.Created, &a.Disabled)
	return a, wrap("read account", err)
}

// Accounts lists all accounts.
func (t *Tx) Accounts() ([]Account, error) {
	return list(t, func(scan func(...any) error) (a Account, err error) {
		return a, scan(&a.ID, &a.PolicyKey, &a.Created, &a.Disabled)
	}, "SELECT id, policy_key, created, disabled FROM account ORDER BY id")
}

// DisableAccount switches an account off or on.
func (t *Tx) DisableAccount(id string, off bool) error {
	return t.one("UPDATE account SET disabled = ? WHERE id = ?", off, id)
}

// AddUser adds a user.
func (t *Tx) AddUser(u User) error {
	return t.exec("INSERT INTO user (account, name, password, created) VALUES (?, ?, ?, ?)", u.Account, u.Name, u.Password, u.Created)
}

// User returns a user; Disabled is also set when the account is off.
func (t *Tx) User(account, name string) (User, error) {
	u := User{Account: account, Name: name}
	err := t.row("SELECT u.password, u.created, u.disabled OR a.disabled FROM user u JOIN account a ON a.id = u.account WHERE u.account = ? AND u.name = ?",
		account, name).Scan(&u.Password, &u.Created, &u.Disabled)
	return u, wrap("read user", err)
}

// DisableUser switches a user off or on and ends the user's logins.
func (t *Tx) DisableUser(account, name string, off bool) error {
	if err := t.one("UPDATE user SET disabled = ? WHERE account = ? AND name = ?", off, account, name); err != nil {
		return err
	}
	return t.exec("DELETE FROM login WHERE account = ? AND user = ?", account, name)
}

// SetPassword changes a password hash and ends the user's logins.
func (t *Tx) SetPassword(account, name, password string) error {
	if err := t.one("UPDATE user SET password = ? WHERE account = ? AND name = ?", password, account, name); err != nil {
		return err
	}
	return t.exec("DELETE FROM login WHERE account = ? AND user = ?", account, name)
}

// KnownKey says whether a client key has logged this user in before.
func (t *Tx) KnownKey(account, user, key string) (bool, error) {
	var n int
	err := t.row("SELECT count(*) FROM known_key WHERE account = ? AND user = ? AND key = ?", account, user, key).Scan(&n)
	return n > 0, wrap("read key", err)
}

// AddLogin stores a login and remembers its key. Expired logins go.
func (t *Tx) AddLogin(l Login, now string) error {
	if err := t.exec("DELETE FROM login WHERE expires <= ?", now); err != nil {
		return err
	}
	if err := t.exec("INSERT OR IGNORE INTO known_key (account, user, key) VALUES (?, ?, ?)", l.Account, l.User, l.Key); err != nil {
		return err
	}
	return t.exec("INSERT INTO login (token, account, user, key, expires) VALUES (?, ?, ?, ?, ?)", l.Token, l.Account, l.User, l.Key, l.Expires)
}

const loginQuery = "SELECT l.token, l.account, l.user, l.key, l.expires FROM login l JOIN user u ON u.account = l.account AND u.name = l.user JOIN account a ON a.id = u.account WHERE NOT u.disabled AND NOT a.disabled AND "

// Login returns the login of a token hash, if user and account are not off.
func (t *Tx) Login(token string) (Login, error) {
	var l Login
	err := t.row(loginQuery+"l.token = ?", token).Scan(&l.Token, &l.Account, &l.User, &l.Key, &l.Expires)
	return l, wrap("read login", err)
}

// LoginByID returns the login whose token hash begins with the 32 digits id.
func (t *Tx) LoginByID(id string) (Login, error) {
	var l Login
	err := t.row(loginQuery+"substr(l.token, 1, 32) = ?", id).Scan(&l.Token, &l.Account, &l.User, &l.Key, &l.Expires)
	return l, wrap("read login", err)
}

// RemoveLogin ends a login.
func (t *Tx) RemoveLogin(token string) error {
	return t.one("DELETE FROM login WHERE token = ?", token)
}

// AddGateway adds an entry with an unused activation key.
func (t *Tx) AddGateway(g Gateway) error {
	return t.exec("INSERT INTO gateway (account, id, activation, expires) VALUES (?, ?, ?, ?)", g.Account, g.ID, g.Activation, g.Expires)
}

// Enrol gives the entry of an activation key, which it uses up, to a device.
// The same key by the same device again, whose answer got lost, is good.
// Unknown, used and expired keys, and devices that have an entry, are the same
// ErrNotFound.
func (t *Tx) Enrol(activation, serial, spki, now string) error {
	var n int
	err := t.row(`SELECT count(*) FROM gateway g JOIN account a ON a.id = g.account
		WHERE g.activation = ? AND g.serial = ? AND g.spki = ? AND NOT g.disabled AND NOT a.disabled`, activation, serial, spki).Scan(&n)
	if err != nil || n > 0 {
		return wrap("read gateway", err)
	}
	return t.one(`UPDATE gateway SET serial = ?, spki = ?, enrolled = ?
		WHERE activation = ? AND expires > ? AND serial IS NULL AND NOT disabled
		AND NOT EXISTS (SELECT 1 FROM gateway WHERE serial = ? OR spki = ?)
		AND NOT (SELECT disabled FROM account WHERE id = gateway.account)`, serial, spki, now, activation, now, serial, spki)
}

const gatewayQuery = "SELECT g.account, g.id, coalesce(g.activation, ''), g.expires, coalesce(g.serial, ''), coalesce(g.spki, ''), g.enrolled, g.disabled OR a.disabled, a.policy_key FROM gateway g JOIN account a ON a.id = g.account WHERE "

func scanGateway(scan func(...any) error) (g Gateway, err error) {
	return g, scan(&g.Account, &g.ID, &g.Activation, &g.Expires, &g.Serial, &g.SPKI, &g.Enrolled, &g.Disabled, &g.AccountPolicyKey)
}

// GatewayBySPKI returns the entry of a device.
func (t *Tx) GatewayBySPKI(spki string) (Gateway, error) {
	g, err := scanGateway(t.row(gatewayQuery+"g.spki = ?", spki).Scan)
	return g, wrap("read gateway", err)
}

// Gateway returns an entry of an account.
func (t *Tx) Gateway(account, id string) (Gateway, error) {
	g, err := scanGateway(t.row(gatewayQuery+"g.account = ? AND g.id = ?", account, id).Scan)
	return g, wrap("read gateway", err)
}

// Gateways lists an account's entries.
func (t *Tx) Gateways(account string) ([]Gateway, error) {
	return list(t, scanGateway, gatewayQuery+"g.account = ? ORDER BY g.id", account)
}

// DisableGateway switches an entry off or on.
func (t *Tx) DisableGateway(account, id string, off bool) error {
	return t.one("UPDATE gateway SET disabled = ? WHERE account = ? AND id = ?", off, account, id)
}

// RemoveGateway deletes an entry, so that its device may enrol elsewhere.
func (t *Tx) RemoveGateway(account, id string) error {
	return t.one("DELETE FROM gateway WHERE account = ? AND id = ?", account, id)
}

// AddAcceptance stores an acceptance with its devices; a device or file that is
// there already is ErrConflict.
func (t *Tx) AddAcceptance(id string, data []byte, now string, devices []Accepted) error {
	if err := t.exec("INSERT INTO acceptance (id, data, imported) VALUES (?, ?, ?)", id, data, now); err != nil {
		return err
	}
	for _, d := range devices {
		if err := t.exec("INSERT INTO accepted (serial, spki, cert, bundle, acceptance) VALUES (?, ?, ?, ?, ?)", d.Serial, d.SPKI, d.Cert, d.Bundle, id); err != nil {
			return err
		}
	}
	return nil
}

// IsAccepted returns nil if exactly this device is accepted, else ErrNotFound.
func (t *Tx) IsAccepted(d Accepted) error {
	var n int
	err := t.row("SELECT count(*) FROM accepted WHERE serial = ? AND spki = ? AND cert = ? AND bundle = ?", d.Serial, d.SPKI, d.Cert, d.Bundle).Scan(&n)
	if err == nil && n != 1 {
		return ErrNotFound
	}
	return wrap("read accepted device", err)
}

// AddPolicy stores a signed policy.
func (t *Tx) AddPolicy(p Policy) error {
	return t.exec("INSERT INTO policy (account, version, hash, data) VALUES (?, ?, ?, ?)", p.Account, p.Version, p.Hash, p.Data)
}

// Policy returns the account's policy of the highest version.
func (t *Tx) Policy(account string) (Policy, error) {
	p := Policy{Account: account}
	err := t.row("SELECT version, hash, data FROM policy WHERE account = ? ORDER BY version DESC LIMIT 1", account).Scan(&p.Version, &p.Hash, &p.Data)
	return p, wrap("read policy", err)
}

// AuditSize is the number of entries in the trail.
func (t *Tx) AuditSize() (int64, error) {
	var n int64
	err := t.row("SELECT coalesce(max(seq), -1) + 1 FROM audit").Scan(&n)
	return n, wrap("read audit trail", err)
}

// AuditHash returns one tree hash.
func (t *Tx) AuditHash(idx int64) ([]byte, error) {
	var h []byte
	err := t.row("SELECT hash FROM audit_hash WHERE idx = ?", idx).Scan(&h)
	return h, wrap("read audit trail", err)
}

// AddAudit appends an entry with the tree hashes from index first on.
func (t *Tx) AddAudit(seq int64, account string, line []byte, first int64, hashes [][]byte) error {
	if err := t.exec("INSERT INTO audit (seq, account, line) VALUES (?, ?, ?)", seq, account, line); err != nil {
		return err
	}
	for i, h := range hashes {
		if err := t.exec("INSERT INTO audit_hash (idx, hash) VALUES (?, ?)", first+int64(i), h); err != nil {
			return err
		}
	}
	return nil
}

// AuditLines returns up to limit lines from seq on, of one account or, with "",
// of all.
func (t *Tx) AuditLines(account string, from int64, limit int) ([][]byte, error) {
	return list(t, func(scan func(...any) error) (b []byte, err error) { return b, scan(&b) },
		"SELECT line FROM audit WHERE seq >= ? AND (? = '' OR account = ?) ORDER BY seq LIMIT ?", from, account, account, limit)
}
