ALTER TABLE "Nodes" DROP COLUMN "secretSealed";
