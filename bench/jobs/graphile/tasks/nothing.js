// Returns at once.
module.exports = async () => {};
