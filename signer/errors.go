package signer

import "keyrite/artifact/fault"

// Classes of refusal.
var (
	// ErrPipeline says that a request is not by a pipeline of the charter.
	ErrPipeline = fault.New(fault.Policy, "the charter knows no such pipeline")
	// ErrProduct says that the pipeline may not release the product.
	ErrProduct = fault.New(fault.Policy, "the pipeline may not release this product")
	// ErrApprover says that somebody approved who may not.
	ErrApprover = fault.New(fault.Policy, "the charter does not let this person approve releases")
	// ErrBinding says that an approval is for something else.
	ErrBinding = fault.New(fault.Policy, "the approval is not for this request")
	// ErrApprovals says that approvals are missing.
	ErrApprovals = fault.New(fault.Quorum, "too few approvals")
	// ErrTwice says that a person's approvals were given twice.
	ErrTwice = fault.New(fault.Quorum, "the same person approved twice")
	// ErrTime says that something has expired or lies in the future.
	ErrTime = fault.New(fault.Policy, "outside its time of validity")
	// ErrReplay says that a request or approval was used before.
	ErrReplay = fault.New(fault.Policy, "was used before")
	// ErrRollback says that the security version would go down.
	ErrRollback = fault.New(fault.Policy, "the security version is lower than one that was signed before")
	// ErrImage says that the image is not the one in the request.
	ErrImage = fault.New(fault.Verify, "the image is not the one in the request")
	// ErrKey says that the token holds another key than the charter names.
	ErrKey = fault.New(fault.Token, "the token's key is not the one in the charter")
	// ErrLedger says that the ledger was altered.
	ErrLedger = fault.New(fault.Verify, "the release ledger was altered")
)
