// The configuration of https://worker.graphile.org/docs/performance.
module.exports = {
  worker: {
    connectionString: process.env.DATABASE_URL,
    taskDirectory: `${__dirname}/tasks`,
    concurrentJobs: 24,
    maxPoolSize: 25,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  },
};
