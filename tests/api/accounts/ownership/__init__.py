"""Who owns an address: strangers sign up with it before and after its owner, who still gets an account."""
