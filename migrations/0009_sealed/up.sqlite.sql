-- secretSealed: the secret, encrypted with CAC_SECRET_KEY; "secret" is NULL then.
ALTER TABLE "Nodes" ADD COLUMN "secretSealed" TEXT DEFAULT NULL;
